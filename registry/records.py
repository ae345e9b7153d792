"""The values that the registry hands out; all frozen, none tied to a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.lineage import Lineage
from switchyard.registry.manifest import FileEntry
from switchyard.registry.refs import AdapterName
from switchyard.registry.strict_json import Json


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What the weights of a version look like.

    Attributes:
        rank: largest over all modules; 0 when there are only gains or copies.
        target_modules: short names of the adapted modules, sorted, e.g. `q_proj`.
        features: PEFT features in use, sorted: `alpha_pattern`, `bias`, `dora`, `embedding` (LoRA on it), `head` (the
            output head is adapted), `ia3`, `modules_to_save`, `rank_pattern`, `rslora`.
        dtype: e.g. `float32`; joined by `+` when the tensors differ.
        parameter_count: elements of all tensors.
        weights_bytes: bytes of all tensors.
    """

    rank: int
    target_modules: tuple[str, ...]
    features: tuple[str, ...]
    dtype: str
    parameter_count: int
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One committed version; only `aliases`, `tags` and the state can differ between two reads.

    Attributes:
        namespace: owner of the name.
        adapter: name within the namespace.
        version: counts from 1 within the adapter, never reused.
        digest: identity, of the manifest.
        base: the base model it was made for.
        shape: what the weights look like.
        lineage: what produced it.
        files: sorted by path.
        publisher: who published it.
        note: free text of the publisher.
        created_at_s: seconds since the epoch.
        aliases: aliases that point here now, sorted.
        warnings: findings that did not refuse it.
        state: whether it may be used.
        state_reason: why it is in that state, in the actor's words.
        tags: labels for search.
    """

    namespace: str
    adapter: str
    version: int
    digest: str
    base: BaseModelSpec
    shape: AdapterShape
    lineage: Lineage
    files: tuple[FileEntry, ...]
    publisher: str
    note: str
    created_at_s: float
    aliases: tuple[str, ...]
    warnings: tuple[str, ...]
    state: VersionState = VersionState.READY
    state_reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> AdapterName:
        """The adapter this is a version of."""
        return AdapterName(self.namespace, self.adapter)

    def file(self, path: str) -> FileEntry:
        """Returns the file at `path`.

        Raises:
            KeyError: the version has no such file.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise KeyError(path)


@dataclass(frozen=True, slots=True)
class CanarySplit:
    """The second version of an alias, and its share of the traffic.

    Attributes:
        version: number of the version.
        digest: identity of that version.
        percent: whole percentage of session keys that get it, 1 to 99.
    """

    version: int
    digest: str
    percent: int


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """Where an alias points.

    Attributes:
        namespace: owner of the adapter's name.
        adapter: the adapter.
        name: the alias.
        version: the version it points to.
        digest: identity of that version.
        generation: number of moves so far; never reset.
        updated_by: who moved it last.
        updated_at_s: when, in seconds since the epoch.
        canary: the second version of a split, or None.
    """

    namespace: str
    adapter: str
    name: str
    version: int
    digest: str
    generation: int
    updated_by: str
    updated_at_s: float
    canary: CanarySplit | None = None


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """Where one alias shall point, among several that move together.

    Attributes:
        name: the adapter.
        alias: the alias.
        version: number of the version.
        expected_generation: generation that the alias must have now; 0 means it must not exist.
    """

    name: AdapterName
    alias: str
    version: int
    expected_generation: int | None = None


@dataclass(frozen=True, slots=True)
class AliasMove:
    """The outcome of moving an alias.

    Attributes:
        alias: where it points now.
        previous_version: where it pointed before; 0 when it is new.
    """

    alias: AliasRecord
    previous_version: int


@dataclass(frozen=True, slots=True)
class AliasEvent:
    """One move in the history of an alias.

    Attributes:
        generation: which move.
        from_version: 0 when the alias was new.
        to_version: where it points since; 0 when it was deleted.
        actor: who moved it.
        reason: why, in the actor's words.
        created_at_s: when, in seconds since the epoch.
        kind: what sort of move.
        canary_version: second version of the split since then; 0 when there is none.
        canary_percent: its share.
        evidence: what was measured, when a machine decided.
    """

    generation: int
    from_version: int
    to_version: int
    actor: str
    reason: str
    created_at_s: float
    kind: AliasEventKind = AliasEventKind.SET
    canary_version: int = 0
    canary_percent: int = 0
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """One adapter and where its aliases point.

    Attributes:
        namespace: owner of the name.
        adapter: name within the namespace.
        latest_version: highest version number.
        aliases: sorted by name.
        base_digest: base model of the latest version.
        updated_at_s: last publish or alias move, in seconds since the epoch.
        description: what it is for, in its owner's words.
        owner: whom to ask about it.
        tags: labels for search.
    """

    namespace: str
    adapter: str
    latest_version: int
    aliases: tuple[AliasRecord, ...]
    base_digest: str
    updated_at_s: float
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResolvedAdapter:
    """What a ref means now.

    Attributes:
        version: the version it names.
        alias: the alias that the ref named; empty for other refs.
        alias_generation: generation of that alias; 0 for other refs.
        canary: whether this is the second version of the alias's split.
    """

    version: VersionRecord
    alias: str
    alias_generation: int
    canary: bool = False

    @property
    def warning(self) -> str:
        """What whoever uses it should know of its state; empty for a READY version."""
        version = self.version
        if version.state is VersionState.READY:
            return ""
        why = f": {version.state_reason}" if version.state_reason else ""
        return f"{version.name}:{version.version} is {version.state}{why}"


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An open publish, or the outcome of one that was already committed.

    Attributes:
        session_id: names the session in later calls.
        missing: digests whose bytes the registry does not have yet, each once.
        expires_at_s: when the lease ends unless bytes arrive, in seconds since the epoch.
        committed: the version, when this idempotency key was committed before.
    """

    session_id: str
    missing: tuple[str, ...]
    expires_at_s: float
    committed: VersionRecord | None


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """How far the upload of one blob is.

    Attributes:
        committed_bytes: offset at which to continue.
        complete: all bytes are there and match the digest.
    """

    committed_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The outcome of a publish.

    Attributes:
        version: the committed version; None when only validated.
        warnings: findings that did not refuse it, as `REASON subject: message`.
    """

    version: VersionRecord | None
    warnings: tuple[str, ...]
