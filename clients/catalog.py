"""Finding versions, comparing them, and what is said of them: states, tags, cards, namespaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from switchyard.clients import record_messages as messages
from switchyard.clients import records
from switchyard.clients.calls import Connection
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


class VersionAction(StrEnum):
    """What can be done with a version."""

    REINSTATE = "reinstate"
    DEPRECATE = "deprecate"
    YANK = "yank"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    DELETE = "delete"
    UNDELETE = "undelete"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs; `before` and `after` are JSON, empty where the version does not have it."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ModuleDiff:
    """One adapted module of two versions.

    Attributes:
        module: path of the module.
        norm: Frobenius norm of the first version's delta; 0 where it does not adapt the module.
        other_norm: the same of the other version.
        rank: effective rank of the first version's delta.
        other_rank: the same of the other version.
        cosine: between the two deltas; 0 when one of them is zero.
    """

    module: str
    norm: float
    other_norm: float
    rank: float
    other_rank: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions and what differs between them."""

    version: records.Version
    other: records.Version
    config: tuple[FieldChange, ...]
    lineage: tuple[FieldChange, ...]
    modules: tuple[ModuleDiff, ...]


@dataclass(frozen=True, slots=True)
class Impact:
    """One version that something reached.

    Attributes:
        version: the version.
        relation: `dataset`, `evaluation`, `recipe` or `parent`.
        distance: 1 when reached directly, 2 through one version between, and so on.
    """

    version: records.Version
    relation: str
    distance: int


@dataclass(frozen=True, slots=True)
class NamespacePolicy:
    """Rules that hold for every adapter of a namespace.

    Attributes:
        keep_last: newest versions of each adapter that retention keeps, however old; 0 keeps all.
        keep_days: days that retention keeps every version, however many come after it.
        protected_aliases: aliases that are protected unless they have a policy of their own; the next
            four are theirs, as in `AliasPolicy`.
        required_statements: kinds of statement that a version must have.
        distinct_promoter: whoever published a version may not move them to it.
        signers: identities of which one must have signed; empty takes any.
        min_approvals: approvals by different people.
        trusted_keys: public keys and root certificates, in PEM, that signatures are verified with.
        signed_publish: whether a version must be signed to be published at all.
    """

    keep_last: int = 0
    keep_days: float = 0.0
    protected_aliases: tuple[str, ...] = ()
    required_statements: tuple[str, ...] = ()
    distinct_promoter: bool = False
    signers: tuple[str, ...] = ()
    min_approvals: int = 0
    trusted_keys: tuple[str, ...] = ()
    signed_publish: bool = False


@dataclass(frozen=True, slots=True)
class Namespace:
    """An owner of adapter names.

    Attributes:
        name: the namespace.
        created_at_s: when it was first published to.
        quota_bytes: what it may hold; None is no limit.
        used_bytes: what it holds.
        policy: its rules.
    """

    name: str
    created_at_s: float
    quota_bytes: int | None
    used_bytes: int
    policy: NamespacePolicy


class CatalogCalls:
    """The calls about versions and names, on the connection of a `RegistryClient`."""

    def __init__(self, connection: Connection, stub: stubs.RegistryServiceStub) -> None:
        self._connection = connection
        self._stub = stub

    def search(self, query: str) -> list[records.Version]:
        """Returns every version for which all terms of `query` hold.

        Raises:
            RequestInvalid: a term does not parse; the message says which are allowed.
        """
        pages = self._connection.pages(self._stub.SearchVersions, pb.SearchVersionsRequest(query=query))
        return [messages.version_from(one) for page in pages for one in page.versions]

    def compare(self, ref: str, other_ref: str) -> Comparison:
        """Returns what differs between two versions: configuration, lineage, and the weights per module.

        Raises:
            NotFound: no such adapter, version or alias.
        """
        request = pb.CompareVersionsRequest(ref=ref, other_ref=other_ref)
        found = self._connection.unary(self._stub.CompareVersions, request)
        return Comparison(
            version=messages.version_from(found.version),
            other=messages.version_from(found.other_version),
            config=tuple(FieldChange(one.field, one.before_json, one.after_json) for one in found.config),
            lineage=tuple(FieldChange(one.field, one.before_json, one.after_json) for one in found.lineage),
            modules=tuple(
                ModuleDiff(one.module, one.norm, one.other_norm, one.rank, one.other_rank, one.cosine)
                for one in found.modules
            ),
        )

    def impacted_by(self, digest: str) -> list[Impact]:
        """Returns the versions that a data set, a recipe or a version reached, the nearest first.

        Raises:
            RequestInvalid: not a digest.
        """
        pages = self._connection.pages(self._stub.ListImpactedVersions, pb.ListImpactedVersionsRequest(digest=digest))
        return [
            Impact(messages.version_from(one.version), one.relation, one.distance)
            for page in pages
            for one in page.versions
        ]

    def card(self, ref: str) -> str:
        """Returns the model card of a version, in Markdown with the Hub's front matter.

        Raises:
            NotFound: no such adapter, version or alias.
        """
        found = self._connection.unary(self._stub.GetModelCard, pb.GetModelCardRequest(ref=ref))
        markdown: str = found.markdown
        return markdown

    def act(
        self, adapter: str, version: int, action: VersionAction, *, reason: str, move_aliases_to: int | None = None
    ) -> records.Version:
        """Moves a version to another state.

        Args:
            adapter: `ns/name`, no selector.
            version: its number.
            action: what to do with it.
            reason: why, for whoever meets the version later.
            move_aliases_to: version that its aliases are moved to, in the same transaction.

        Raises:
            NotFound: no such adapter or version.
            PreconditionFailed: its state does not allow it, or an alias points to it.
        """
        request = pb.SetVersionStateRequest(
            adapter=adapter,
            version=version,
            action=pb.VersionAction.Value(f"VERSION_ACTION_{action.name}"),
            reason=reason,
            move_aliases_to=move_aliases_to,
        )
        return messages.version_from(self._connection.unary(self._stub.SetVersionState, request).version)

    def tag_version(
        self, adapter: str, version: int, set_tags: Mapping[str, str], remove: Sequence[str] = ()
    ) -> records.Version:
        """Sets and removes tags of one version.

        Raises:
            NotFound: no such adapter or version.
            RequestInvalid: a key or a value; all of them are listed.
        """
        request = pb.TagVersionRequest(adapter=adapter, version=version, set_tags=set_tags, remove_tags=remove)
        return messages.version_from(self._connection.unary(self._stub.TagVersion, request).version)

    def tag_adapter(
        self, adapter: str, set_tags: Mapping[str, str], remove: Sequence[str] = ()
    ) -> records.AdapterSummary:
        """Sets and removes tags of an adapter.

        Raises:
            NotFound: no such adapter.
            RequestInvalid: a key or a value; all of them are listed.
        """
        request = pb.TagAdapterRequest(adapter=adapter, set_tags=set_tags, remove_tags=remove)
        return messages.summary_from(self._connection.unary(self._stub.TagAdapter, request).adapter)

    def describe(
        self, adapter: str, *, description: str | None = None, owner: str | None = None
    ) -> records.AdapterSummary:
        """Sets what is said of an adapter; None leaves it as it is.

        Raises:
            NotFound: no such adapter.
        """
        request = pb.UpdateAdapterRequest(adapter=adapter, description=description, owner=owner)
        return messages.summary_from(self._connection.unary(self._stub.UpdateAdapter, request).adapter)

    def namespaces(self) -> list[Namespace]:
        """Returns every namespace by name.

        Raises:
            ClientError: the registry cannot tell.
        """
        pages = self._connection.pages(self._stub.ListNamespaces, pb.ListNamespacesRequest())
        return [_namespace_from(one) for page in pages for one in page.namespaces]

    def set_quota(self, namespace: str, quota_bytes: int | None) -> Namespace:
        """Sets what a namespace may hold; None takes the limit away.

        Raises:
            NotFound: no such namespace.
        """
        request = pb.UpdateNamespaceRequest(
            namespace=namespace, quota_bytes=quota_bytes, clear_quota=quota_bytes is None
        )
        return _namespace_from(self._connection.unary(self._stub.UpdateNamespace, request).namespace)

    def set_policy(self, namespace: str, policy: NamespacePolicy) -> Namespace:
        """Replaces the rules of a namespace.

        Raises:
            RequestInvalid: a rule is out of range; the message tells all.
        """
        wanted = pb.NamespacePolicy(
            keep_last=policy.keep_last,
            keep_days=policy.keep_days,
            protected_aliases=policy.protected_aliases,
            required_statements=policy.required_statements,
            distinct_promoter=policy.distinct_promoter,
            signers=policy.signers,
            min_approvals=policy.min_approvals,
            trusted_keys=policy.trusted_keys,
            signed_publish=policy.signed_publish,
        )
        request = pb.UpdateNamespaceRequest(namespace=namespace, policy=wanted)
        return _namespace_from(self._connection.unary(self._stub.UpdateNamespace, request).namespace)


def _namespace_from(message: pb.Namespace) -> Namespace:
    return Namespace(
        name=message.name,
        created_at_s=messages.seconds_of(message.create_time),
        quota_bytes=message.quota_bytes if message.HasField("quota_bytes") else None,
        used_bytes=message.used_bytes,
        policy=NamespacePolicy(
            keep_last=message.policy.keep_last,
            keep_days=message.policy.keep_days,
            protected_aliases=tuple(message.policy.protected_aliases),
            required_statements=tuple(message.policy.required_statements),
            distinct_promoter=message.policy.distinct_promoter,
            signers=tuple(message.policy.signers),
            min_approvals=message.policy.min_approvals,
            trusted_keys=tuple(message.policy.trusted_keys),
            signed_publish=message.policy.signed_publish,
        ),
    )
