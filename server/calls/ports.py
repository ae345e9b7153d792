"""What the faces need from the rooms behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from switchyard.registry.records import ResolvedAdapter
from switchyard.registry.refs import AdapterRef
from switchyard.registry.strict_json import Json
from switchyard.server.adapters.tiers import AdapterStatus
from switchyard.server.chat.origin import Segment
from switchyard.server.engine.streams import TokenStream
from switchyard.server.engine.structure import Grammar, Structure
from switchyard.server.engine.types import (
    AdapterPart,
    AdapterSelection,
    Digest,
    EngineLoad,
    ErrorEvent,
    FinishedEvent,
    GenerateRequest,
)
from switchyard.server.errors import ServerError


class GenerationEngine(Protocol):
    """Accepts requests and answers them: an engine of this process or of another one, or a fake in tests."""

    async def submit(self, request: GenerateRequest) -> TokenStream:
        """Accepts a request on the running event loop.

        Raises:
            QueueFull: too many requests are alive.
            DeadlineUnreachable: the answer would come too late.
            ContextLength: no KV row could ever hold it.
            Draining: the server is stopping.
            RequestIdInUse: another live request has this id.
            EngineFailed: the step loop has died.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Ends a request before its next step; unknown ids are ignored."""
        ...

    def load(self) -> EngineLoad:
        """A snapshot for operators."""
        ...

    def begin_drain(self) -> None:
        """Refuses new requests from now on."""
        ...


class Tokenizer(Protocol):
    """Turns text into token ids of the base model; safe to call from several threads."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    def encode(self, text: str) -> Sequence[int]:
        """Token ids of `text`, with the tokens that the base wants in front."""
        ...

    def text_of(self, token_id: int) -> str:
        """Text of one token alone; control tokens by their names."""
        ...

    @property
    def chat_template(self) -> str:
        """The base's own chat template; empty without one."""
        ...

    @property
    def template_variables(self) -> Mapping[str, Json]:
        """What chat templates may name beside the conversation."""
        ...

    @property
    def control_tokens(self) -> Sequence[str]:
        """How all control tokens are spelled."""
        ...

    def encode_parts(self, parts: Sequence[Segment]) -> Sequence[int]:
        """Token ids of a prompt that is complete: no token is put in front."""
        ...


class GrammarCompiler(Protocol):
    """Compiles what answers have to look like."""

    async def compile(self, structure: Structure) -> Grammar:
        """Compiles a structure, or finds it compiled already.

        Raises:
            StructureInvalid: it cannot be read, or asks for what is not supported.
            StructureTooCostly: compiling it goes beyond the bounds of size, depth or time.
            CompilersBusy: as many structures wait to be compiled as may.
        """
        ...


class Resolver(Protocol):
    """Turns a ref into the one version it names now."""

    async def resolve(self, ref: AdapterRef, session_key: str) -> ResolvedAdapter:
        """Asks the registry, every time: what was withdrawn a moment ago is not served from memory.

        Args:
            ref: what was asked for.
            session_key: decides between the versions of a split; empty gets the first.

        Raises:
            RegistryError: the adapter, version or alias does not exist, may not be used, or the registry failed.
        """
        ...


class AdapterMemory(Protocol):
    """The adapters in memory, for operators."""

    async def statuses(self) -> Sequence[AdapterStatus]:
        """Every adapter in memory or on its way."""
        ...

    async def load(self, selection: AdapterSelection) -> AdapterStatus:
        """Brings an adapter to host memory and waits for it.

        Raises:
            AdapterUnavailable: it could not be loaded.
        """
        ...

    async def prefetch(self, selection: AdapterSelection) -> None:
        """Starts to bring an adapter to host memory, without waiting for it.

        Raises:
            AdapterUnavailable: the last attempt failed and it is too early for another.
        """
        ...

    async def unload(self, key: Digest) -> AdapterStatus | None:
        """Takes an adapter out of memory; returns what it was, None when it was not there.

        Raises:
            AdapterInUse: sequences use it.
        """
        ...


class AnswerObserver(Protocol):
    """Hears how the answers of versions ended; used to compare them."""

    def answered(self, request: GenerateRequest, event: FinishedEvent | ErrorEvent) -> None:
        """A request ended, with its terminal event."""
        ...

    def unanswerable(self, part: AdapterPart, error: ServerError) -> None:
        """A version that was asked for cannot answer on this server."""
        ...


class NobodyListens:
    """An observer of answers that nobody compares."""

    def answered(self, request: GenerateRequest, event: FinishedEvent | ErrorEvent) -> None:
        """Ignores the event."""

    def unanswerable(self, part: AdapterPart, error: ServerError) -> None:
        """Ignores the event."""


class RefusalObserver(Protocol):
    """Hears what the faces decide; used for metrics."""

    def introduce(self, selection: AdapterSelection) -> None:
        """A request was admitted with this selection."""
        ...

    def refused(self, reason: str) -> None:
        """A request was refused before acceptance."""
        ...

    def rpc(self, method: str, code: str) -> None:
        """A call ended."""
        ...
