"""Which right every call needs: one entry per RPC, and no server starts without all of them.

An entry reads from the request what the call is about. Where the request names
no adapter (a session, a blob, a statement) the registry is asked for it; what
it does not know belongs to nobody, so that a stranger cannot tell a name that
is not there from one that is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pool  # type: ignore[import-untyped]

from switchyard.proto.registry.v1 import registry_pb2 as registry_pb
from switchyard.registry import errors
from switchyard.registry.access.policy import Scope
from switchyard.registry.access.reach import Reach
from switchyard.registry.access.resources import Resource
from switchyard.registry.refs import AdapterName, check_alias, check_name
from switchyard.registry.verdicts import shown
from switchyard.server.calls.needs import Need, generation_needs, on_adapter, on_everything, on_ref
from switchyard.server.rpc.drafting import target_of

Needs = Callable[[Any, Reach], tuple[Need, ...]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one RPC needs.

    Attributes:
        needs: rights that a request needs, all of them.
        absent: the error for what is not there, and for what the caller may not know to be there.
        asks_registry: whether the registry is asked whom it belongs to, which takes time.
    """

    needs: Needs
    absent: type[errors.NotFound] = errors.AdapterNotFound
    asks_registry: bool = False


def _adapter(scope: Scope, alias_field: str = "") -> Needs:
    def needs(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401 - any message of any service
        alias = getattr(request, alias_field) if alias_field else ""
        return (on_adapter(scope, request.adapter, alias),)

    return needs


def _ref(scope: Scope, *fields: str) -> Needs:
    def needs(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
        return tuple(on_ref(scope, getattr(request, field)) for field in fields)

    return needs


def _session(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    subject = f"upload session {shown(request.session_id)}"
    return (Need(Scope.PUBLISH, reach.of_session(request.session_id), subject),)


def _commit(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    (publish,) = _session(request, reach)
    if not request.set_alias:
        return (publish,)
    alias = check_alias(request.set_alias)
    aliased = tuple(Resource(owner.namespace, owner.adapter, alias) for owner in publish.owners)
    return (publish, Need(Scope.PROMOTE, aliased, f"{publish.subject} to alias {alias}"))


def _blob(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    return (Need(Scope.READ, reach.of_blob(request.digest), f"blob {shown(request.digest)}"),)


def _statement(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    owners = reach.of_statement(request.statement_id)
    return (
        on_ref(Scope.READ, request.ref),
        Need(Scope.READ, owners, f"statement {shown(request.statement_id)}"),
    )


def _namespace(scope: Scope, *, within: bool = False) -> Needs:
    def needs(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
        name = check_name(request.namespace, "namespace") if request.namespace else ""
        resource = Resource(name)
        return (Need(scope, (resource,), str(resource), within),)

    return needs


def _whole(scope: Scope, *, within: bool = False) -> Needs:
    need = on_everything(scope, within=within)
    return lambda _request, _reach: (need,)


_ACTION_SCOPES: Final = {
    registry_pb.VERSION_ACTION_DELETE: Scope.DELETE,
    registry_pb.VERSION_ACTION_UNDELETE: Scope.DELETE,
}


def _state(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    change = on_adapter(_ACTION_SCOPES.get(request.action, Scope.YANK), request.adapter)
    if not request.HasField("move_aliases_to"):
        return (change,)
    # Another alias may point there by the time it is done, so it also takes the right to move any.
    aliases = reach.aliases_on(AdapterName.parse(request.adapter), request.version)
    moved = tuple(Need(Scope.PROMOTE, (one,), str(one)) for one in aliases)
    return (change, *_adapter(Scope.PROMOTE)(request, reach), *moved)


def _batch(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    needs = tuple(on_adapter(Scope.PROMOTE, target.adapter, target.alias) for target in request.targets)
    return needs or _whole(Scope.PROMOTE, within=True)(request, _reach)


def _watch(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    if request.namespace and request.adapter:
        return (on_adapter(Scope.READ, f"{request.namespace}/{request.adapter}"),)
    return _namespace(Scope.READ, within=True)(request, _reach)


def _generate(request: Any, _reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    return generation_needs(target_of(request))


def _generate_once(request: Any, reach: Reach) -> tuple[Need, ...]:  # noqa: ANN401
    return _generate(request.request, reach)


_SESSION: Final = Rule(_session, errors.SessionNotFound, asks_registry=True)
_REGISTRY: Final = {
    "BeginPublish": Rule(_adapter(Scope.PUBLISH)),
    "UploadBlob": _SESSION,
    "ConfirmUpload": _SESSION,
    "QueryUpload": _SESSION,
    "CommitPublish": Rule(_commit, errors.SessionNotFound, asks_registry=True),
    "AbortPublish": _SESSION,
    "RenewLease": _SESSION,
    "Resolve": Rule(_ref(Scope.READ, "ref")),
    "GetVersion": Rule(_ref(Scope.READ, "ref")),
    "ListAdapters": Rule(_whole(Scope.READ, within=True)),
    "GetAdapter": Rule(_adapter(Scope.READ)),
    "ListVersions": Rule(_adapter(Scope.READ)),
    "DownloadBlob": Rule(_blob, errors.BlobNotFound, asks_registry=True),
    "SearchVersions": Rule(_whole(Scope.READ, within=True)),
    "CompareVersions": Rule(_ref(Scope.READ, "ref", "other_ref")),
    "ListImpactedVersions": Rule(_whole(Scope.READ, within=True)),
    "GetModelCard": Rule(_ref(Scope.READ, "ref")),
    "SetVersionState": Rule(_state, asks_registry=True),
    "TagVersion": Rule(_adapter(Scope.TAG)),
    "TagAdapter": Rule(_adapter(Scope.TAG)),
    "UpdateAdapter": Rule(_adapter(Scope.TAG)),
    "SetAlias": Rule(_adapter(Scope.PROMOTE, "alias")),
    "ListAliasHistory": Rule(_adapter(Scope.READ, "alias")),
    "ListAliases": Rule(_adapter(Scope.READ)),
    "BatchSetAliases": Rule(_batch),
    "RollbackAlias": Rule(_adapter(Scope.ROLLBACK, "alias")),
    "DeleteAlias": Rule(_adapter(Scope.PROMOTE, "alias")),
    "SetCanary": Rule(_adapter(Scope.PROMOTE, "alias")),
    "GetAliasPolicy": Rule(_adapter(Scope.READ, "alias")),
    "SetAliasPolicy": Rule(_adapter(Scope.POLICY, "alias")),
    "AttachStatement": Rule(_ref(Scope.ATTACH, "ref")),
    "ListStatements": Rule(_ref(Scope.READ, "ref")),
    "ReadStatement": Rule(_statement, errors.StatementNotFound, asks_registry=True),
    "GetNamespace": Rule(_namespace(Scope.READ, within=True), errors.NamespaceNotFound),
    "ListNamespaces": Rule(_whole(Scope.READ, within=True)),
    "UpdateNamespace": Rule(_namespace(Scope.POLICY), errors.NamespaceNotFound),
    "ListBaseModels": Rule(_whole(Scope.READ, within=True)),
    "Watch": Rule(_watch, errors.NamespaceNotFound),
}
_UPKEEP: Final = {
    "Collect": Rule(_whole(Scope.COLLECT)),
    "Scrub": Rule(_whole(Scope.COLLECT)),
    "ApplyRetention": Rule(_namespace(Scope.COLLECT), errors.NamespaceNotFound),
    "ListAuditEvents": Rule(_whole(Scope.AUDIT)),
    "VerifyAudit": Rule(_whole(Scope.AUDIT)),
}
_ROLLOUT: Final = {
    "StartRollout": Rule(_adapter(Scope.PROMOTE, "alias")),
    "GetRollout": Rule(_adapter(Scope.READ, "alias")),
    "ListRollouts": Rule(_whole(Scope.READ)),
    "StopRollout": Rule(_adapter(Scope.ROLLBACK, "alias")),
}
_INFERENCE: Final = {
    "Generate": Rule(_generate),
    "GenerateOnce": Rule(_generate_once),
    "Chat": Rule(_generate),
    "Render": Rule(_generate_once),
    "Tokenize": Rule(_whole(Scope.GENERATE, within=True)),
    "Score": Rule(_generate),
    "Embed": Rule(_generate),
    # Whose request it is decides the request itself: of others it is told to be none.
    "Abort": Rule(_whole(Scope.GENERATE, within=True)),
    "ListServable": Rule(_whole(Scope.GENERATE, within=True)),
}
_ADMIN: Final = {
    "GetServerInfo": Rule(_whole(Scope.OBSERVE)),
    "GetLoad": Rule(_whole(Scope.OBSERVE)),
    "ListAdapterStates": Rule(_whole(Scope.OBSERVE)),
    "Plan": Rule(_whole(Scope.OBSERVE)),
    "LoadAdapter": Rule(_ref(Scope.LOAD, "ref")),
    "UnloadAdapter": Rule(_ref(Scope.LOAD, "ref")),
    "Drain": Rule(_whole(Scope.DRAIN)),
}

RULES: Final[dict[str, Rule]] = {
    f"/{service}/{rpc}": rule
    for service, rules in (
        ("switchyard.registry.v1.RegistryService", _REGISTRY),
        ("switchyard.registry.v1.UpkeepService", _UPKEEP),
        ("switchyard.registry.v1.RolloutService", _ROLLOUT),
        ("switchyard.inference.v1.InferenceService", _INFERENCE),
        ("switchyard.admin.v1.AdminService", _ADMIN),
    )
    for rpc, rule in rules.items()
}
"""Full name of every RPC, as gRPC spells it, to its rule."""


def require_rules(service_names: Iterable[str]) -> None:
    """Makes sure that every RPC of the services has a rule.

    Raises:
        ValueError: some have none, or a rule is for no RPC; names all of them.
    """
    pool = descriptor_pool.Default()
    for name in service_names:
        there = {f"/{name}/{method.name}" for method in pool.FindServiceByName(name).methods}
        ruled = {method for method in RULES if method.startswith(f"/{name}/")}
        if there != ruled:
            raise ValueError(
                f"RPCs without an access rule: {sorted(there - ruled)}; rules without an RPC: "
                f"{sorted(ruled - there)}; mend server/rpc/access_rules.py"
            )
