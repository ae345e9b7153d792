"""Answers that list things show a caller only what it may see, and nothing of the rest, not even its number.

A page is gathered from as many pages as it takes, and ends at something the
caller may see: the token of the next page names what the page ends with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from switchyard.registry.access.policy import Grant, Scope, decide, decide_within
from switchyard.registry.access.resources import EVERYTHING, Resource
from switchyard.registry.index.changes import ChangeKind
from switchyard.server.calls.catalog import DEFAULT_PAGE, MAX_PAGE, page_limit
from switchyard.server.calls.needs import is_visible

if TYPE_CHECKING:
    from grpc.aio import ServicerContext

    Context = ServicerContext[Any, Any]
    Behaviour = Callable[[Any, Context], Awaitable[Any]]
    Grants = tuple[Grant, ...]
    Answer = Callable[[Behaviour, Any, Context, Grants], Awaitable[Any]]
    Visible = Callable[[Any, Grants], bool]
    Ask = Callable[[str, int], Awaitable[Any]]
    See = Callable[[Any], list[Any]]

_PER_REQUEST: Final = 500
"""Items asked for at once while most of them may be somebody else's."""


def _named(item: Any, grants: Grants, scope: Scope) -> bool:  # noqa: ANN401 - any message that names an adapter
    """Whether an item with namespace and adapter may be seen, as such or through one of its aliases."""
    aliases = [alias if isinstance(alias, str) else alias.name for alias in getattr(item, "aliases", ())]
    return is_visible(item, aliases, grants, scope)


def _readable(item: Any, grants: Grants) -> bool:  # noqa: ANN401
    return _named(item, grants, Scope.READ)


def _servable(item: Any, grants: Grants) -> bool:  # noqa: ANN401
    return _named(item, grants, Scope.GENERATE)


class _Pages:
    """One paged call, asked as often as it takes."""

    def __init__(
        self, ask: Callable[[str, int], Awaitable[Any]], see: Callable[[Any], list[Any]], field: str
    ) -> None:
        self._ask = ask
        self._see = see
        self._field = field

    async def gather(self, token: str, wanted: int) -> Any:  # noqa: ANN401
        """Returns a response with at least `wanted` visible items, unless there are fewer."""
        kept: list[Any] = []
        edge = (token, 0)
        while True:
            response = await self._ask(token, _PER_REQUEST)
            seen = self._see(response)
            if len(kept) + len(seen) > wanted:
                if len(kept) < wanted:
                    return await self._cut(kept, token, wanted - len(kept))
                # Only now it is known that more follows: the page ends where the last visible item was.
                return await self._cut(kept[: -edge[1]], *edge)
            kept += seen
            edge = (token, len(seen)) if seen else edge
            token = response.next_page_token
            if not token:
                _keep(response, self._field, kept)
                return response

    async def _cut(self, kept: list[Any], token: str, count: int) -> Any:  # noqa: ANN401
        """Adds the shortest page from `token` on that shows `count` visible items, which so ends with one."""
        low, high = 1, _PER_REQUEST
        while low < high:
            middle = (low + high) // 2
            if len(self._see(await self._ask(token, middle))) >= count:
                high = middle
            else:
                low = middle + 1
        response = await self._ask(token, low)
        _keep(response, self._field, kept + self._see(response))
        return response


def _paged(field: str, visible: Visible, default: int = DEFAULT_PAGE) -> Answer:
    """An answer that comes in pages."""

    async def answer(behaviour: Behaviour, request: Any, context: Context, grants: Grants) -> Any:  # noqa: ANN401
        async def ask(token: str, size: int) -> Any:  # noqa: ANN401
            page = type(request)()
            page.CopyFrom(request)
            page.page_token, page.page_size = token, size
            return await behaviour(page, context)

        def see(response: Any) -> list[Any]:  # noqa: ANN401
            return [item for item in getattr(response, field) if visible(item, grants)]

        wanted = page_limit(request.page_size, default)
        if decide(grants, Scope.READ, EVERYTHING):
            return await behaviour(request, context)
        return await _Pages(ask, see, field).gather(request.page_token, wanted)

    return answer


def _keep(response: Any, field: str, items: list[Any]) -> None:  # noqa: ANN401
    # Copied first: the items may be parts of the very message that is emptied.
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    response.ClearField(field)
    getattr(response, field).extend(copies)


class _WatchedContext:
    """The context of a watch whose events pass a filter."""

    def __init__(self, context: Context, grants: Grants) -> None:
        self._context = context
        self._grants = grants

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._context, name)

    async def write(self, event: Any) -> None:  # noqa: ANN401
        """Sends an event that the caller may see."""
        if _watchable(event, self._grants):
            await self._context.write(event)


def _watchable(event: Any, grants: Grants) -> bool:  # noqa: ANN401
    if event.kind == ChangeKind.ACCESS_CHANGED:
        return decide(grants, Scope.ACCESS, EVERYTHING)
    if event.kind in _FOR_EVERYBODY:
        return True
    return decide(grants, Scope.READ, Resource(event.namespace, event.adapter))


async def _watch(behaviour: Behaviour, request: Any, context: Context, grants: Grants) -> Any:  # noqa: ANN401
    watched: Any = _WatchedContext(context, grants)
    return await behaviour(request, watched)


def _has_readable(item: Any, grants: Grants) -> bool:  # noqa: ANN401
    return decide_within(grants, Scope.READ, Resource(item.name))


_FOR_EVERYBODY: Final = frozenset({"bookmark", str(ChangeKind.BASE_REGISTERED)})
_REGISTRY: Final = "/switchyard.registry.v1.RegistryService"

ANSWERS: Final[dict[str, Answer]] = {
    f"{_REGISTRY}/ListAdapters": _paged("adapters", _readable),
    f"{_REGISTRY}/SearchVersions": _paged("versions", _readable),
    f"{_REGISTRY}/ListImpactedVersions": _paged("versions", lambda item, grants: _readable(item.version, grants)),
    f"{_REGISTRY}/ListNamespaces": _paged("namespaces", _has_readable, MAX_PAGE),
    f"{_REGISTRY}/Watch": _watch,
    "/switchyard.inference.v1.InferenceService/ListServable": _paged("adapters", _servable),
}
"""Methods whose answers are filtered; all others are about one thing that the caller may see."""
