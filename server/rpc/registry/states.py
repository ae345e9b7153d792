"""What may change about a version or an adapter, over the wire: states, tags, descriptions."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of
from switchyard.server.rpc.registry.fields import FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context

_GOALS: Final = {
    pb.VERSION_ACTION_REINSTATE: VersionState.READY,
    pb.VERSION_ACTION_DEPRECATE: VersionState.DEPRECATED,
    pb.VERSION_ACTION_YANK: VersionState.YANKED,
    pb.VERSION_ACTION_QUARANTINE: VersionState.QUARANTINED,
    pb.VERSION_ACTION_DELETE: VersionState.DELETED,
}
"""Actions that name the state they lead to; the others lead back to the one before."""

_WAYS_BACK: Final = frozenset({pb.VERSION_ACTION_RELEASE, pb.VERSION_ACTION_UNDELETE})


class StateCalls(RegistryCalls):
    """The calls that change what is no content."""

    async def SetVersionState(
        self, request: pb.SetVersionStateRequest, context: Context
    ) -> pb.SetVersionStateResponse:
        """Withdraws, holds back, deletes a version, or takes that back."""
        checks = FieldChecks()
        known = request.action in _GOALS or request.action in _WAYS_BACK
        checks.require("action", known, f"{request.action} is no action; name one of VersionAction")
        along = request.HasField("move_aliases_to")
        checks.require(
            "move_aliases_to",
            not along or request.action not in _WAYS_BACK,
            "no alias has to leave a version that comes back; leave it unset",
        )
        checks.refuse_faults()
        version = await self._run(lambda: self._set_state(request, actor_of(context)))
        return pb.SetVersionStateResponse(version=messages.version_message(version))

    async def TagVersion(self, request: pb.TagVersionRequest, context: Context) -> pb.TagVersionResponse:
        """Sets and removes tags of a version."""
        name = AdapterName.parse(request.adapter)
        ref = AdapterRef(name.namespace, name.adapter, version=request.version)

        def tag() -> VersionRecord:
            self._registry.labels.tag(
                name, request.version, dict(request.set_tags), list(request.remove_tags), actor=actor_of(context)
            )
            return self._registry.get_version(ref)

        return pb.TagVersionResponse(version=messages.version_message(await self._run(tag)))

    async def TagAdapter(self, request: pb.TagAdapterRequest, context: Context) -> pb.TagAdapterResponse:
        """Sets and removes tags of an adapter."""
        name = AdapterName.parse(request.adapter)
        await self._run(
            lambda: self._registry.labels.tag(
                name, None, dict(request.set_tags), list(request.remove_tags), actor=actor_of(context)
            )
        )
        summary = await self._run(lambda: self._registry.get_adapter(name))
        return pb.TagAdapterResponse(adapter=messages.summary_message(summary))

    async def UpdateAdapter(self, request: pb.UpdateAdapterRequest, context: Context) -> pb.UpdateAdapterResponse:
        """Changes what an adapter says of itself."""
        name = AdapterName.parse(request.adapter)
        await self._run(
            lambda: self._registry.labels.describe(
                name,
                description=request.description if request.HasField("description") else None,
                owner=request.owner if request.HasField("owner") else None,
                actor=actor_of(context),
            )
        )
        summary = await self._run(lambda: self._registry.get_adapter(name))
        return pb.UpdateAdapterResponse(adapter=messages.summary_message(summary))

    def _set_state(self, request: pb.SetVersionStateRequest, actor: str) -> VersionRecord:
        states, name = self._registry.states, AdapterName.parse(request.adapter)
        if request.action == pb.VERSION_ACTION_RELEASE:
            return states.release(name, request.version, actor=actor, reason=request.reason)
        if request.action == pb.VERSION_ACTION_UNDELETE:
            return states.undelete(name, request.version, actor=actor, reason=request.reason)
        return states.move(
            name,
            request.version,
            _GOALS[request.action],
            actor=actor,
            reason=request.reason,
            move_aliases_to=request.move_aliases_to if request.HasField("move_aliases_to") else None,
        )
