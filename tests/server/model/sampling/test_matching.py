"""A structure that fails in the middle of an answer ends that answer by name, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
import torch
from llguidance import LLTokenizer
from sampling_rows import EOS, logits, piece

from switchyard.server.engine.sampling_params import SamplingParams
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.engine.types import SequenceSlice
from switchyard.server.errors import NoTokenAllowed
from switchyard.server.model.sampling.grammars import CompiledGrammar, compile_structure
from switchyard.server.model.sampling.sampler import Chosen, Sampler

VOCAB, A = 300, ord("a")
AMBIGUOUS = """
start: (a|b|c|d)+
a: "a" start "a" | "a"
b: "a" b | "a"
c: "a" c "a" | "a"
d: d d | "a"
"""
SLOW = 'start: e\ne: e e | "a" | e e e'


class Panic(BaseException):
    """As the panic of the library, which is no Exception."""


def raising(error: BaseException) -> Callable[[object], NoReturn]:
    def fail(*ignored: object) -> NoReturn:
        raise error

    return fail


class Breaking:
    """A matcher of which one call raises."""

    def __init__(self, call: str, error: BaseException) -> None:
        self.compute_bitmask = lambda: b"\xff" * 38
        self.consume_tokens = lambda tokens: True
        self.is_error = lambda: False
        setattr(self, call, raising(error))


class BreakingGrammar(CompiledGrammar):
    def matcher(self) -> Breaking:  # type: ignore[override]
        return self.start  # type: ignore[return-value]


def compiled(source: str) -> CompiledGrammar:
    return compile_structure(LLTokenizer("byte"), "x", Structure(StructureKind.GRAMMAR, (source,)))


def structured(grammar: CompiledGrammar, output: tuple[int, ...]) -> SequenceSlice:
    return piece(SamplingParams(grammar=grammar), name="structured", output=output)


def beside(one: SequenceSlice) -> Chosen:
    return Sampler(EOS).choose(logits(2, VOCAB), [one, piece(name="free")])


@pytest.mark.parametrize("source", [AMBIGUOUS, SLOW])
def test_a_structure_that_fails_midway_ends_its_answer_by_name(source: str) -> None:
    grammar, sampler, output = compiled(source), Sampler(EOS), []
    row = torch.zeros(1, VOCAB)
    row[0, A] = 1.0
    refused: dict[str, object] = {}
    while not refused and len(output) < 200:
        chosen = sampler.choose(row, [structured(grammar, tuple(output))])
        refused = dict(chosen.refused)
        output += [one.token for one in chosen.tokens.values()]
    assert set(output) == {A}, "it never looks as if it had ended"
    assert isinstance(refused["structured"], NoTokenAllowed)
    assert "items" in str(refused["structured"])
    assert len(output) < 120
    assert set(beside(structured(grammar, tuple(output))).tokens) == {"free"}


@pytest.mark.parametrize("call", ["compute_bitmask", "consume_tokens", "is_error"])
@pytest.mark.parametrize("error", [Panic("index out of bounds"), RuntimeError("index out of bounds")])
def test_a_panic_in_one_matcher_refuses_its_row_alone(call: str, error: BaseException) -> None:
    grammar = BreakingGrammar("x", Breaking(call, error))  # type: ignore[arg-type]
    chosen = beside(structured(grammar, (A,)))
    assert set(chosen.tokens) == {"free"}
    assert "index out of bounds" in str(chosen.refused["structured"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_the_end_of_the_process_is_no_failure_of_a_structure(error: BaseException) -> None:
    with pytest.raises(type(error)):
        beside(structured(BreakingGrammar("x", Breaking("consume_tokens", error)), (A,)))  # type: ignore[arg-type]
