"""From what a caller asked for to a request the engine may run, or the reason why not.

Checks run from cheap to dear: fields, then names, then text. Everything about
the answer's weights is fixed here: an alias that moves later changes nothing
for a request that was admitted. No gRPC: every face admits through this module.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from switchyard.registry.records import ResolvedAdapter, VersionRecord
from switchyard.registry.refs import AdapterRef
from switchyard.registry.serving_contract import CONTRACT_FILE
from switchyard.server.adapters import composition
from switchyard.server.calls.bounds import field_faults
from switchyard.server.calls.contracts import NO_CONTRACT, Contracts, constrained, under
from switchyard.server.calls.draft import (
    AdapterTarget,
    BaseTarget,
    CompositionTarget,
    RequestDraft,
    Target,
    WeightedRef,
)
from switchyard.server.calls.field_reasons import FieldLimits, FieldReason
from switchyard.server.calls.generation_params import (
    answers_asked,
    check_logprobs,
    sampling_params,
    stopping_params,
)
from switchyard.server.calls.ports import AnswerObserver, GrammarCompiler, NobodyListens, Resolver
from switchyard.server.calls.prompts import Prompt, Prompts
from switchyard.server.engine.ports import Clock
from switchyard.server.engine.recipe import Recipe
from switchyard.server.engine.types import (
    AdapterPart,
    AdapterSelection,
    Digest,
    GenerateRequest,
)
from switchyard.server.errors import (
    AdapterError,
    BaseMismatch,
    CompositionInvalid,
    ContextLength,
    DeadlineExceeded,
    FieldFault,
    InvalidField,
    PromptEmpty,
    QuantizationMismatch,
    RankTooLarge,
    ServerError,
    TargetRequired,
)

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

_ALONE: dict[str, type[ServerError]] = {
    FieldReason.TARGET_REQUIRED: TargetRequired,
    FieldReason.PROMPT_EMPTY: PromptEmpty,
    FieldReason.CONTEXT_LENGTH: ContextLength,
}
"""Faults that have a class of their own when nothing else is wrong."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What this server can answer.

    Attributes:
        base_digest: identity of the resident base model.
        quantization: its label, e.g. `nf4+double/float32`.
        max_context_tokens: tokens that prompt and answer may have together.
        max_rank: largest rank, summed over a composition, that an adapter slot holds.
        default_max_tokens: answer length when the caller names none and the context allows it.
        max_prompt_bytes: largest prompt text that is tokenised, in UTF-8 bytes.
        max_request_s: longest life of a request, in seconds; also for callers without a deadline.
        embedding_width: numbers in a vector; 0 where the base makes none.
    """

    base_digest: str
    quantization: str
    max_context_tokens: int
    max_rank: int
    default_max_tokens: int
    max_prompt_bytes: int = 256 * 1024
    max_request_s: float = 600.0
    embedding_width: int = 0


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Exactly what will produce an answer.

    Attributes:
        adapters: the versions that take part; empty for the base model.
        base_digest: identity of the base model.
        quantization: label of its quantisation.
        recipe_digest: digest of the composition; empty without one.
    """

    adapters: tuple[AdapterPart, ...]
    base_digest: str
    quantization: str
    recipe_digest: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be submitted.

    Attributes:
        request: what the engine gets.
        served_by: what the caller is told.
    """

    request: GenerateRequest
    served_by: ServedBy


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft, with all that its adapter brings.

    Attributes:
        draft: what is asked for.
        prompt: what the model reads.
        context_tokens: tokens that prompt and answer may have together.
    """

    draft: RequestDraft
    prompt: Prompt
    context_tokens: int


class Admission:
    """Admits requests; used from one event loop."""

    def __init__(
        self,
        policy: AdmissionPolicy,
        resolver: Resolver,
        prompts: Prompts,
        contracts: Contracts,
        clock: Clock,
        grammars: GrammarCompiler,
        answers: AnswerObserver | None = None,
    ) -> None:
        """Wires the parts.

        Args:
            policy: what this server can answer.
            resolver: finds versions.
            prompts: makes token ids of what was said.
            contracts: knows what adapters bring to a conversation.
            clock: the engine's clock.
            grammars: compiles what answers have to look like.
            answers: hears which versions cannot answer here.
        """
        self.policy = policy
        self._answers = answers or NobodyListens()
        self._resolver = resolver
        self._prompts = prompts
        self._contracts = contracts
        self._clock = clock
        self._grammars = grammars
        self.limits = FieldLimits(policy.max_context_tokens, policy.max_prompt_bytes, prompts.tokenizer.vocab_size)

    async def admit(self, draft: RequestDraft, *, remaining_s: float | None = None, tenant: str = "") -> Admitted:
        """Checks a draft and fixes everything about its answer.

        Args:
            draft: what the caller asked for.
            remaining_s: seconds until the caller's deadline; None when it has none.
            tenant: who asks, as proven; empty where nobody has to prove anything.

        Raises:
            RequestError: the request is wrong.
            AdapterError: the adapter cannot answer on this server.
            RegistryError: the ref names nothing, or the registry failed.
            DeadlineExceeded: the deadline has passed already.
            CompilersBusy: too many structures wait to be compiled.
        """
        _refuse_faults(field_faults(under(NO_CONTRACT, draft), self.limits))
        deadline_s = self.deadline_s(remaining_s)
        request_id = draft.request_id or new_request_id()
        # Who is nobody in particular gets a draw of its own with every request.
        selection = await self.select(draft.target, draft.session_key or request_id)
        with self._blaming(*(selection.parts if selection else ())):
            prepared = await self.prepared(draft, selection)
        draft, prompt_tokens = prepared.draft, prepared.prompt.tokens
        stopping = stopping_params(
            draft.stopping,
            len(prompt_tokens),
            context_tokens=prepared.context_tokens,
            default_max_tokens=self.policy.default_max_tokens,
        )
        check_logprobs(draft.sampling, len(prompt_tokens), stopping.max_tokens)
        grammar = await self._grammars.compile(draft.structure) if draft.structure else None
        n, best_of = answers_asked(draft.sampling)
        request = GenerateRequest(
            request_id=request_id,
            prompt_tokens=prompt_tokens,
            adapter=selection,
            sampling=sampling_params(draft.sampling, grammar),
            stopping=stopping,
            deadline_s=deadline_s,
            tenant=tenant,
            priority=draft.priority or 0,
            n=n,
            best_of=best_of,
        )
        return Admitted(request, self.served_by(selection))

    def deadline_s(self, remaining_s: float | None) -> float:
        """When a request ends that arrives now, on the engine's clock.

        Args:
            remaining_s: seconds until the caller's deadline; None when it has none.

        Raises:
            DeadlineExceeded: the deadline has passed already.
        """
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineExceeded("the deadline had passed when the request arrived")
        most_s = self.policy.max_request_s
        return self._clock.now() + (most_s if remaining_s is None else min(most_s, remaining_s))

    async def render(self, draft: RequestDraft) -> tuple[Prompt, ServedBy]:
        """The prompt that a draft becomes, and who would answer; nothing is asked of the engine.

        Raises:
            RequestError, AdapterError, RegistryError: see `admit`.
        """
        _refuse_faults(field_faults(under(NO_CONTRACT, draft), self.limits))
        selection = await self.select(draft.target, draft.session_key)
        return (await self.prepared(draft, selection)).prompt, self.served_by(selection)

    async def prepared(self, draft: RequestDraft, selection: AdapterSelection | None) -> Prepared:
        """What a draft asks for once it is known who answers.

        Raises:
            RequestError: what it asks for together with the adapter's contract is wrong; see `Prompts.of`.
            RegistryError: the contract cannot be read.
        """
        contract = await self._contracts.of(selection)
        draft = under(contract, draft)
        if contract is not NO_CONTRACT:
            # What was left out may contradict what the adapter brings, e.g. a temperature for several answers.
            _refuse_faults(field_faults(draft, self.limits))
        draft = constrained(draft)
        context_tokens = min(self.policy.max_context_tokens, contract.max_context_tokens or sys.maxsize)
        return Prepared(draft, await self._prompts.of(draft, contract), context_tokens)

    def served_by(self, selection: AdapterSelection | None) -> ServedBy:
        """What a caller is told about a selection; None is the base model."""
        parts = selection.parts if selection else ()
        recipe = selection.recipe_digest if selection else ""
        return ServedBy(parts, self.policy.base_digest, self.policy.quantization, recipe)

    async def select(self, target: Target | None, session_key: str = "") -> AdapterSelection | None:
        """Resolves a target whose fields are in range; None for the base model.

        Args:
            target: who was asked.
            session_key: decides between the versions of a split; empty gets the first.

        Raises:
            TargetRequired: nobody was asked.
            AdapterError: an adapter cannot answer on this server.
            CompositionInvalid: two refs name the same version, or the versions cannot be merged so.
            RegistryError: a ref names nothing, or the registry failed.
        """
        if target is None:
            raise TargetRequired("nobody was asked; set one of base, adapter or composition")
        if isinstance(target, BaseTarget):
            return None
        if isinstance(target, AdapterTarget):
            part = await self._part(WeightedRef(target.ref, 1.0), session_key)
            with self._blaming(part):
                return self._fitting(composition.single(part))
        parts = [await self._part(weighted, session_key) for weighted in target.adapters]
        for index, part in enumerate(parts):
            first = next(i for i, other in enumerate(parts) if other.digest == part.digest)
            if first != index:
                raise CompositionInvalid(
                    f"composition.adapters[{index}] and [{first}] are both {_ref(part)} ({part.digest}); "
                    "name it once, with the sum of the weights"
                )
        return self._fitting(composition.composed(parts, _recipe(target)))

    async def resolve(self, ref: str, session_key: str = "") -> ResolvedAdapter:
        """The version that a ref names now, if this base can answer for it.

        Args:
            ref: as the caller wrote it.
            session_key: see `select`.

        Raises:
            AdapterError: it cannot answer on this server.
            RegistryError: the ref names nothing, or the registry failed.
        """
        resolved = await self._resolver.resolve(AdapterRef.parse(ref), session_key)
        self._check_version(resolved.version)
        return resolved

    async def _part(self, weighted: WeightedRef, session_key: str) -> AdapterPart:
        resolved = await self._resolver.resolve(AdapterRef.parse(weighted.ref), session_key)
        part = _part_of(resolved, weighted.weight)
        with self._blaming(part):
            self._check_version(resolved.version)
        return part

    @contextmanager
    def _blaming(self, *parts: AdapterPart) -> Iterator[None]:
        try:
            yield
        except AdapterError as error:
            for part in parts:
                self._answers.unanswerable(part, error)
            raise

    def _check_version(self, version: VersionRecord) -> None:
        name = f"{version.name}:{version.version}"
        if version.base.digest != self.policy.base_digest:
            raise BaseMismatch(
                f"{name} was made for base {version.base.name} ({version.base.digest}); "
                f"this server holds {self.policy.base_digest}; train it on that base or ask another server"
            )
        trained = version.lineage.training_quantization
        if trained is not None and _weights_of(trained.label()) != _weights_of(self.policy.quantization):
            raise QuantizationMismatch(
                f"{name} was trained on a base quantised as {trained.label()}; this server holds "
                f"{self.policy.quantization}, whose weights differ; serve the base as it was trained on"
            )

    def _fitting(self, selection: AdapterSelection) -> AdapterSelection:
        if selection.rank > self.policy.max_rank:
            parts = " + ".join(f"{_ref(part)} (rank {part.rank})" for part in selection.parts)
            raise RankTooLarge(
                f"{parts} takes rank {selection.rank}; an adapter slot of this server holds "
                f"{self.policy.max_rank}; start it with a larger max_rank"
            )
        return selection


def new_request_id() -> str:
    """A name for a request whose caller gave none."""
    return f"req-{secrets.token_hex(8)}"


def _refuse_faults(faults: tuple[FieldFault, ...]) -> None:
    if not faults:
        return
    if len(faults) == 1 and faults[0].reason in _ALONE:
        raise _ALONE[faults[0].reason](faults[0].message)
    raise InvalidField(faults)


def _recipe(target: CompositionTarget) -> Recipe:
    return Recipe(target.method, target.density, target.seed, target.majority_sign, target.svd_rank)


def _part_of(resolved: ResolvedAdapter, weight: float) -> AdapterPart:
    version = resolved.version
    return AdapterPart(
        namespace=version.namespace,
        adapter=version.adapter,
        version=version.version,
        digest=Digest(version.digest),
        alias=resolved.alias,
        alias_generation=resolved.alias_generation,
        weight=weight,
        rank=version.shape.rank,
        weights_digest=version.file(WEIGHTS_FILE).digest,
        config_digest=version.file(CONFIG_FILE).digest,
        weights_bytes=version.file(WEIGHTS_FILE).size_bytes,
        canary=resolved.canary,
        features=version.shape.features,
        contract_digest=next((file.digest for file in version.files if file.path == CONTRACT_FILE), ""),
    )


def _ref(part: AdapterPart) -> str:
    return f"{part.namespace}/{part.adapter}:{part.version}"


def _weights_of(quantization: str) -> str:
    """The part of a quantisation label that decides the weights; the compute dtype only rounds."""
    return quantization.partition("/")[0]
