"""Compiling what answers have to look like, within bounds of size, depth and time.

llguidance compiles lazily: a matcher is ready within milliseconds and its cost
is spread over the steps, in each of which the library counts what it does and stops at a limit.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.errors import CompilersBusy, StructureInvalid, StructureTooCostly

LIMITS: Final = LLParserLimits(
    max_items_in_row=500,
    initial_lexer_fuel=200_000,
    step_lexer_fuel=20_000,
    step_max_items=2500,
    max_lexer_states=250_000,
    max_grammar_size=500_000,
    verbose_errors=False,
)
"""Work that one structure may cause, when it is compiled and in each step: counts, not time.

Every row of a step's batch waits for the slowest structure among them. An item of the parser is one
rule at one place; an optional property of a JSON schema takes about four, an ambiguous or
right-recursive grammar more with every token, until it is refused.
"""

COMPILE_S: Final = 5.0
"""Seconds that a caller waits for a compiled structure."""

MAX_RULES: Final = 1024
"""Rules of one grammar: the library follows them by recursion."""

_STACK_BYTES: Final = 64 << 20
"""Stack of a compiling thread; a chain of 3000 rules overflows the usual 8 MiB and fits this."""

_CACHED: Final = 64
_THREADS: Final = 2
_WAITING: Final = 16
_MESSAGE_CHARACTERS: Final = 500

_SPACES: Final = "[ ]?|\\n[ ]{0,32}"
"""Between the parts of JSON: one space, or a line break with an indent; a model cannot go on with spaces for ever."""

_NOTHING_FITS: Final = "NoExtension"
"""How the library begins to say that no token fits at the start."""

_NOT_VERBOSE: Final = "<non-verbose/>"
_TOO_COSTLY: Final = ("fuel", "limit", "too large", "too big", "too complex", "too many")
"""Words of the library for bounds; everything else it says is about the structure itself."""


@dataclass(frozen=True, slots=True)
class CompiledGrammar:
    """One compiled structure, shared by the requests that ask for it.

    Attributes:
        digest: identity of the structure and of the tokenizer.
        start: a matcher at the beginning of an answer; copied, never advanced.
    """

    digest: str
    start: LLMatcher

    def matcher(self) -> LLMatcher:
        """A matcher of one's own, at the beginning of an answer."""
        return self.start.deep_copy()


class GrammarCompilers:
    """Compiles structures on threads of its own and keeps the last ones; belongs to one event loop."""

    def __init__(self, load_tokenizer: Callable[[], LLTokenizer], tokenizer_digest: str) -> None:
        """Starts with nothing compiled.

        Args:
            load_tokenizer: makes the library's view of the base's tokenizer; called once, on a thread.
            tokenizer_digest: identity of that tokenizer.
        """
        self._load_tokenizer = load_tokenizer
        self._tokenizer_digest = tokenizer_digest
        self._tokenizer: Future[LLTokenizer] | None = None
        self._pool = _deep_threads()
        self._compiled: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._pending: dict[str, Future[CompiledGrammar]] = {}

    async def compile(self, structure: Structure) -> CompiledGrammar:
        """Compiles a structure; see `GrammarCompiler.compile`."""
        digest = self._digest(structure)
        if digest in self._compiled:
            self._compiled.move_to_end(digest)
            return self._compiled[digest]
        if digest not in self._pending:
            self._start(digest, structure)
        # Others may wait for the same structure, so that a caller who gives up must not end it.
        waiting = asyncio.shield(asyncio.wrap_future(self._pending[digest]))
        try:
            async with asyncio.timeout(COMPILE_S):
                grammar = await waiting
        except TimeoutError:
            raise StructureTooCostly(
                f"the {structure.kind} was not compiled within {COMPILE_S:g} s; make it smaller or simpler"
            ) from None
        return grammar

    def close(self) -> None:
        """Lets go of the threads; what they are compiling is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _digest(self, structure: Structure) -> str:
        return sha256_digest(canonical_json([self._tokenizer_digest, structure.kind, list(structure.texts)]))

    def _start(self, digest: str, structure: Structure) -> None:
        if len(self._pending) >= _WAITING:
            raise CompilersBusy(f"{len(self._pending)} structures are being compiled, the limit; try again later")
        if self._tokenizer is None:
            self._tokenizer = self._pool.submit(self._load_tokenizer)
        tokenizer = self._tokenizer
        loop = asyncio.get_running_loop()
        future = self._pool.submit(lambda: compile_structure(tokenizer.result(), digest, structure))
        self._pending[digest] = future
        future.add_done_callback(lambda done: _tell(loop, lambda: self._take_in(digest, done)))

    def _take_in(self, digest: str, done: Future[CompiledGrammar]) -> None:
        """Keeps what was compiled, also when everybody who waited has gone: they may ask again."""
        self._pending.pop(digest, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._compiled[digest] = done.result()
        while len(self._compiled) > _CACHED:
            self._compiled.popitem(last=False)


def compile_structure(tokenizer: LLTokenizer, digest: str, structure: Structure) -> CompiledGrammar:
    """Compiles one structure, up to and including the mask of the first token.

    Raises:
        StructureInvalid: it cannot be read, asks for what is not supported, or nothing matches it.
        StructureTooCostly: it goes beyond `LIMITS`.
    """
    if structure.kind is StructureKind.GRAMMAR and (rules := structure.texts[0].count(":")) > MAX_RULES:
        raise StructureTooCostly(f"grammar: {rules} rules; at most {MAX_RULES} are compiled; make it smaller")
    try:
        matcher = LLMatcher(tokenizer, _source(structure), log_level=0, limits=LIMITS)
    except ValueError as error:
        raise _refusal(structure.kind, str(error)) from error
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        raise _refusal(structure.kind, matcher.get_error())
    return CompiledGrammar(digest, matcher)


def _source(structure: Structure) -> str:
    if structure.kind is StructureKind.CHOICES:
        return LLMatcher.grammar_from_lark("start: " + " | ".join(_lark_string(text) for text in structure.texts))
    [text] = structure.texts
    if structure.kind is StructureKind.JSON_SCHEMA:
        # Strict, so that what the library cannot keep to is refused and never left out.
        return LLMatcher.grammar_from_json_schema(text, overrides={"lenient": False, "whitespace_pattern": _SPACES})
    if structure.kind is StructureKind.REGEX:
        return LLMatcher.grammar_from_regex(text)
    return LLMatcher.grammar_from_lark(text)


def _lark_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refusal(kind: StructureKind, found: str) -> StructureInvalid | StructureTooCostly:
    first = " ".join(found.replace(_NOT_VERBOSE, "").split())[:_MESSAGE_CHARACTERS]
    if first.startswith(_NOTHING_FITS):
        return StructureInvalid(f"{kind}: no text that this base can write matches it; check the structure")
    if any(word in first.lower() for word in _TOO_COSTLY):
        return StructureTooCostly(f"{kind}: {first}; make it smaller or simpler")
    return StructureInvalid(f"{kind}: {first}")


def _deep_threads() -> ThreadPoolExecutor:
    """Threads with a stack that the deepest structure within the bounds fits."""
    pool = ThreadPoolExecutor(_THREADS, "grammar")
    together = threading.Barrier(_THREADS)
    usual = threading.stack_size(_STACK_BYTES)
    try:
        for _ in range(_THREADS):
            pool.submit(together.wait)
    finally:
        threading.stack_size(usual)
    return pool


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
