"""Structured answers of a random model: every one that ends by itself matches, also across preemption and n."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from fake_runner import ListSink
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine, output

from switchyard.server.engine.sampling_params import SamplingParams, StoppingParams
from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.engine.types import ErrorEvent, FinishedEvent, FinishReason, TokenEvent
from switchyard.server.errors import NoTokenAllowed
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.model.sampling.grammars import CompiledGrammar, compile_structure
from switchyard.server.model.sampling.sampler import Sampler

PROMPT = (5, 6, 7)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,5}$"},
        "count": {"type": "integer", "minimum": -9, "maximum": 99},
        "kind": {"enum": ["new", "old", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "count", "kind", "tags"],
    "additionalProperties": False,
}
PATTERN = "[a-z]{2,6}-[0-9]{1,4}(é|路)?"
CHOICES = ('say "yes"', "no", "no\\n", "路")
EXPRESSION = """
start: term (("+" | "*") term)?
term: NUMBER | "(" NUMBER ")"
NUMBER: /[0-9]{1,3}/
"""


def is_record(text: str) -> bool:
    value = json.loads(text)
    return (
        set(value) == {"name", "count", "kind", "tags"}
        and re.fullmatch("[a-z]{1,5}", value["name"]) is not None
        and isinstance(value["count"], int)
        and -9 <= value["count"] <= 99
        and value["kind"] in ("new", "old", None)
        and len(value["tags"]) <= 2
        and all(isinstance(tag, bool) for tag in value["tags"])
    )


def matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.fullmatch(pattern, text) is not None


CASES: dict[str, tuple[Structure, Callable[[str], bool]]] = {
    "schema": (Structure(StructureKind.JSON_SCHEMA, (json.dumps(SCHEMA),)), is_record),
    "regex": (
        Structure(StructureKind.REGEX, (r"[a-z]{2,6}-[0-9]{1,4}(é|路)?",)),
        matches("[a-z]{2,6}-[0-9]{1,4}(é|路)?"),
    ),
    "grammar": (
        Structure(StructureKind.GRAMMAR, (EXPRESSION,)),
        matches(r"([0-9]{1,3}|\([0-9]{1,3}\))([+*]([0-9]{1,3}|\([0-9]{1,3}\)))?"),
    ),
    "choices": (
        Structure(StructureKind.CHOICES, ('say "yes"', "no", "no\\n", "路")),
        {'say "yes"', "no", "no\\n", "路"}.__contains__,
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(str(make_tiny_llama(tmp_path_factory.mktemp("base"))))


@pytest.fixture(scope="module")
def compiled(base: LoadedBase) -> dict[str, CompiledGrammar]:
    view = base.tokenizer.grammar_view()
    return {name: compile_structure(view, name, structure) for name, (structure, _) in CASES.items()}


@pytest.fixture
def engine(base: LoadedBase) -> Iterator[TinyEngine]:
    engine = TinyEngine(base)
    yield engine
    engine.host.close()


def text(sink: ListSink, index: int = 0) -> str:
    return "".join(event.text for event in sink.events if isinstance(event, TokenEvent) and event.index == index)


def ended(sink: ListSink) -> FinishedEvent:
    end = sink.events[-1]
    assert isinstance(end, FinishedEvent), end
    return end


@pytest.mark.parametrize("name", CASES)
def test_sixty_answers_of_a_random_model_all_match(
    engine: TinyEngine, compiled: dict[str, CompiledGrammar], name: str
) -> None:
    sinks = [
        engine.submit(
            PROMPT,
            sampling=SamplingParams(1.0, seed=seed, grammar=compiled[name]),
            stopping=StoppingParams(max_tokens=400),
        )
        for seed in range(60)
    ]
    engine.run()
    complete = [text(sink) for sink in sinks if ended(sink).reason is FinishReason.STOP]
    assert len(complete) == 60
    assert all(CASES[name][1](one) for one in complete)
    assert len(set(complete)) > (2 if name == "choices" else 50), "different seeds give different answers"
    assert engine.runner.sampler.remembered == frozenset()


def test_a_cut_answer_says_so(engine: TinyEngine, compiled: dict[str, CompiledGrammar]) -> None:
    sink = engine.submit(
        PROMPT, sampling=SamplingParams(grammar=compiled["schema"]), stopping=StoppingParams(max_tokens=3)
    )
    engine.run()
    assert ended(sink).reason is FinishReason.LENGTH
    assert text(sink).startswith("{")


def test_every_one_of_several_answers_matches(engine: TinyEngine, compiled: dict[str, CompiledGrammar]) -> None:
    sampling = SamplingParams(1.0, seed=5, grammar=compiled["regex"])
    sink = engine.submit(PROMPT, sampling=sampling, stopping=StoppingParams(40), n=3)
    alone = engine.submit(PROMPT, sampling=sampling, stopping=StoppingParams(40))
    engine.run()
    answers = [text(sink, index) for index in range(3)]
    assert len(set(answers)) == 3
    assert all(CASES["regex"][1](one) for one in answers)
    assert answers[0] == text(alone), "the first answer is the one that is given when one is asked for"


def test_a_stop_string_ends_a_structure_early(engine: TinyEngine, compiled: dict[str, CompiledGrammar]) -> None:
    sink = engine.submit(
        PROMPT, sampling=SamplingParams(grammar=compiled["regex"]), stopping=StoppingParams(40, stop=("-",))
    )
    engine.run()
    assert ended(sink).matched_stop == "-"
    assert re.fullmatch("[a-z]{2,6}", text(sink))


def test_structured_rows_leave_their_neighbours_alone(
    engine: TinyEngine, compiled: dict[str, CompiledGrammar]
) -> None:
    free = SamplingParams(1.0, seed=11)
    alone = engine.tokens(PROMPT, sampling=free)
    engine.submit(
        PROMPT, sampling=SamplingParams(1.0, seed=1, grammar=compiled["schema"]), stopping=StoppingParams(30)
    )
    beside = engine.submit(PROMPT, sampling=free)
    engine.run()
    assert output(beside) == alone


def test_a_matcher_built_again_goes_on_where_it_was(engine: TinyEngine, compiled: dict[str, CompiledGrammar]) -> None:
    """As after a preemption: what the sampler remembers is forgotten after every step."""
    sampling, stopping = SamplingParams(1.0, seed=8, grammar=compiled["schema"]), StoppingParams(400)
    steady = engine.submit(PROMPT, sampling=sampling, stopping=stopping)
    engine.run()
    forgetful = engine.submit(PROMPT, sampling=sampling, stopping=stopping)
    while engine.engine.load().waiting_requests or engine.engine.load().running_sequences:
        engine.engine.step()
        for name in engine.runner.sampler.remembered:
            engine.runner.sampler.forget(name)
    assert text(forgetful) == text(steady)


def test_contradicting_wishes_end_one_request_by_name(
    engine: TinyEngine, compiled: dict[str, CompiledGrammar]
) -> None:
    sampling = SamplingParams(grammar=compiled["choices"], allowed_token_ids=(2,))
    sink = engine.submit(PROMPT, sampling=sampling, stopping=StoppingParams(9))
    other = engine.submit(PROMPT)
    engine.run()
    end = sink.events[-1]
    assert isinstance(end, ErrorEvent)
    assert isinstance(end.error, NoTokenAllowed)
    assert ended(other).completion_tokens == 12


def test_a_grammar_of_another_kind_is_a_bug(base: LoadedBase) -> None:
    class Foreign:
        digest = "x"

    from sampling_rows import logits, piece

    with pytest.raises(TypeError, match="another sampler"):
        Sampler(frozenset()).choose(logits(1), [piece(SamplingParams(grammar=Foreign()))])
