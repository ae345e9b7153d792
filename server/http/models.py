"""`GET /v1/models`: the base, every version that can be asked for, and every alias that names one."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from switchyard.registry.access.policy import Scope, decide
from switchyard.registry.access.resources import EVERYTHING
from switchyard.registry.records import VersionRecord
from switchyard.server.calls.admission import Admission
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.catalog import MAX_PAGE, Servable, ServableCatalog
from switchyard.server.calls.draft import BaseTarget
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import generation_needs, is_visible
from switchyard.server.http.completion_answers import Tree
from switchyard.server.http.endpoint import Call
from switchyard.server.http.sampling_fields import target_of

MAX_PAGES: Final = 10
"""Pages of adapters that one answer has; `has_more` says when there are others."""


class Models:
    """Answers calls about models; belongs to one event loop."""

    def __init__(self, catalog: ServableCatalog, admission: Admission, base_name: str, base_digest: str) -> None:
        """Wires the parts.

        Args:
            catalog: what can be asked for.
            admission: knows what a single name means.
            base_name: the model that is the base without an adapter.
            base_digest: its identity.
        """
        self._catalog = catalog
        self._admission = admission
        self._base_name = base_name
        self._base_digest = base_digest

    async def every(self, call: Call) -> Response:
        """Lists what the caller may ask for.

        Raises:
            PermissionDenied: the caller may ask for nothing.
            RegistryError: the registry failed.
        """
        del call
        if (caller := CALLER.get()) is not None:
            require(generation_needs(BaseTarget()), caller)
        models, token = [self._base()], ""
        for _ in range(MAX_PAGES):
            page = await self._catalog.page(MAX_PAGE, token)
            models += [model for row in page.adapters if _may_use(row) for model in self._of_version(row)]
            token = page.next_token
            if not token:
                break
        return JSONResponse({"object": "list", "data": models, "has_more": bool(token)})

    async def retrieve(self, call: Call) -> Response:
        """Tells about one model, by any name that a request may have for it.

        Raises:
            NotFound: the caller may use nothing of that name.
            RegistryError: it is no ref, or the registry failed.
            AdapterError: it cannot answer on this server.
        """
        name: str = call.request.path_params["model"]
        target = target_of(name, self._base_name)
        if (caller := CALLER.get()) is not None:
            require(generation_needs(target), caller)
        if isinstance(target, BaseTarget):
            return JSONResponse(self._base())
        version = (await self._admission.resolve(name)).version
        own = _name(version)
        return JSONResponse(self._adapter(name, own, version))

    def _base(self) -> dict[str, Tree]:
        """The base; when it was made is not known."""
        name = self._base_name
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "switchyard",
            "root": name,
            "parent": None,
            "digest": self._base_digest,
        }

    def _of_version(self, row: Servable) -> list[dict[str, Tree]]:
        """The version by its number, and by each alias."""
        version = row.version
        own = _name(version)
        names = [own, *(f"{version.namespace}/{version.adapter}@{alias}" for alias in version.aliases)]
        return [self._adapter(name, own, version) | {"resident": row.resident} for name in names]

    def _adapter(self, name: str, own: str, version: VersionRecord) -> dict[str, Tree]:
        return {
            "id": name,
            "object": "model",
            "created": int(version.created_at_s),
            "owned_by": version.namespace,
            "root": own,
            "parent": self._base_name,
            "version": version.version,
            "aliases": list(version.aliases),
            "digest": version.digest,
        }


def _name(version: VersionRecord) -> str:
    return f"{version.namespace}/{version.adapter}:{version.version}"


def _may_use(row: Servable) -> bool:
    caller = CALLER.get()
    if caller is None or decide(caller.grants, Scope.READ, EVERYTHING):
        return True
    return is_visible(row.version, row.version.aliases, caller.grants, Scope.GENERATE)
