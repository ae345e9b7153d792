"""Where one answer stands in its structure; what goes wrong there ends this answer and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from llguidance import LLMatcher

from switchyard.server.model.sampling.grammars import CompiledGrammar

Result = TypeVar("Result")


class AnswerMatcher:
    """One answer's own matcher, in which errors and panics of the library become a failure of this answer."""

    def __init__(self, grammar: CompiledGrammar) -> None:
        """Starts at the beginning of an answer."""
        self._failure: str | None = None
        self._matcher: LLMatcher | None = self._guarded(grammar.matcher)

    @property
    def failure(self) -> str | None:
        """Why the structure cannot be followed any further; None while it can."""
        return self._failure

    def consume(self, tokens: Sequence[int]) -> None:
        """Goes on by tokens of the answer; does nothing after a failure."""
        matcher = self._matcher
        if matcher is not None:
            self._guarded(lambda: matcher.consume_tokens(list(tokens)))
            self._notice()

    def allowed(self) -> bytes | None:
        """What may come next, a bit per token of the tokenizer, the lowest first; None after a failure."""
        matcher = self._matcher
        if matcher is None:
            return None
        bits = self._guarded(matcher.compute_bitmask)
        self._notice()
        return bits if self._failure is None else None

    def _notice(self) -> None:
        """Sees errors, in which the library lets every answer end as if it were complete."""
        matcher = self._matcher
        if matcher is not None and self._guarded(matcher.is_error):
            self._end(self._guarded(matcher.get_error) or "unknown")

    def _guarded(self, call: Callable[[], Result]) -> Result | None:
        try:
            return call()
        except (KeyboardInterrupt, SystemExit):
            raise
        # A panic of the library is no Exception.
        except BaseException as error:
            self._end(f"{type(error).__name__}: {error}")
            return None

    def _end(self, failure: str) -> None:
        """Keeps the first failure; a matcher that has panicked is never asked again."""
        self._failure = self._failure or failure
        self._matcher = None
