"""What the registry answers with, as frozen records.

Times are seconds since 1970 UTC. The records hold only plain values, so that
`dataclasses.asdict` gives the JSON that the command line prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class VersionState(StrEnum):
    """Whether a version may be used; UNKNOWN is one that only a newer server knows."""

    UNKNOWN = "unknown"
    READY = "ready"
    DEPRECATED = "deprecated"
    YANKED = "yanked"
    QUARANTINED = "quarantined"
    DELETED = "deleted"
    PURGED = "purged"


class AliasEventKind(StrEnum):
    """What a move of an alias was; UNKNOWN is one that only a newer server knows."""

    UNKNOWN = "unknown"
    SET = "set"
    ROLLBACK = "rollback"
    CANARY = "canary"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A registered base model.

    Attributes:
        digest: identity, over configuration, weights and tokenizer.
        name: what people call it; never an identity.
        config_digest: digest of the configuration.
        weights_digest: digest of the weights.
        tokenizer_digest: digest of the tokenizer.
        chat_template_digest: digest of the chat template; empty without one.
        architecture: class of the model, e.g. `LlamaForCausalLM`.
        vocab_size: tokens in the vocabulary.
    """

    digest: str
    name: str
    config_digest: str
    weights_digest: str
    tokenizer_digest: str
    chat_template_digest: str
    architecture: str
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Quantization:
    """How base weights were quantised.

    Attributes:
        method: `nf4`, `fp4`, `int8` or `none`.
        double_quantization: whether the constants are quantised again.
        compute_dtype: dtype of the matmuls.
    """

    method: str
    double_quantization: bool
    compute_dtype: str


@dataclass(frozen=True, slots=True)
class Metric:
    """One named score and the data it was measured on (empty when unknown)."""

    name: str
    value: float
    dataset_digest: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """What produced a version.

    Attributes:
        dataset_digest: digest of the training data; empty when unknown.
        recipe_digest: digest of the recipe; empty when unknown.
        code_commit: commit of the training code; empty when unknown.
        training_quantization: of the base during training; None when unknown.
        parents: versions that it was continued or merged from.
        metrics: scores.
        environment: library versions by name.
    """

    dataset_digest: str = ""
    recipe_digest: str = ""
    code_commit: str = ""
    training_quantization: Quantization | None = None
    parents: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What the weights look like.

    Attributes:
        rank: largest rank over all modules.
        target_modules: short names of the adapted modules.
        features: PEFT features in use.
        dtype: dtype of the stored factors.
        parameter_count: numbers in all factors.
        weights_bytes: size of the weights file.
    """

    rank: int
    target_modules: tuple[str, ...]
    features: tuple[str, ...]
    dtype: str
    parameter_count: int
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a version."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable published version.

    Attributes:
        namespace: namespace of the adapter.
        adapter: name of the adapter.
        version: number within the adapter, from 1.
        digest: identity: digest of the manifest.
        base_model: the base it is made for.
        shape: what its weights look like.
        lineage: what produced it.
        files: its files.
        publisher: who published it.
        note: the publisher's words.
        created_at_s: when it was published.
        aliases: aliases that point here now.
        warnings: findings that did not prevent publishing.
        state: whether it may be used.
        state_reason: why it is in that state, in the words of who put it there.
        tags: labels for search.
    """

    namespace: str
    adapter: str
    version: int
    digest: str
    base_model: BaseModel
    shape: Shape
    lineage: Lineage
    files: tuple[PublishedFile, ...]
    publisher: str
    note: str
    created_at_s: float
    aliases: tuple[str, ...]
    warnings: tuple[str, ...]
    state: VersionState = VersionState.READY
    state_reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Namespace and adapter, e.g. `default/address`."""
        return f"{self.namespace}/{self.adapter}"

    @property
    def ref(self) -> str:
        """The exact version, e.g. `default/address:3`."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class CanarySplit:
    """The second version of an alias, and the whole percentage of session keys that get it."""

    version: int
    digest: str
    percent: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable pointer to one version.

    Attributes:
        namespace: namespace of the adapter.
        adapter: name of the adapter.
        name: name of the alias.
        version: number that it points at.
        digest: identity of that version.
        generation: moves so far; never reset.
        updated_by: who moved it last.
        updated_at_s: when that was.
        canary: the second version of a split; None when all traffic goes to `version`.
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
class AliasMove:
    """A move that just happened; `previous_version` is 0 when the alias is new."""

    alias: Alias
    previous_version: int


@dataclass(frozen=True, slots=True)
class AliasEvent:
    """One move in the history of an alias.

    Attributes:
        generation: which move.
        from_version: 0 when the alias was new.
        to_version: 0 when it was deleted.
        actor: who moved it.
        reason: why.
        created_at_s: when.
        kind: what sort of move.
        canary_version: second version of the split since then; 0 when there is none.
        canary_percent: its share.
        evidence: JSON object with what was measured, when a machine decided; else empty.
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
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """One adapter, where its aliases point, and what its owner says of it."""

    namespace: str
    adapter: str
    latest_version: int
    aliases: tuple[Alias, ...]
    base_digest: str
    updated_at_s: float
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ref names now; `alias` is empty unless the ref was one, `canary` tells its second version."""

    version: Version
    alias: str
    alias_generation: int
    canary: bool = False
