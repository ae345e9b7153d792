"""The parity matrix: {architectures} x {kinds of adapters} x {ways to be served}, against plain PEFT.

The references come from another process, which imports nothing of the server; see `peft_oracle.py`. Here the
engine itself serves: alone, in a mixed batch of every kind of adapter and the base, with a prompt in chunks, from
the prefix cache, and after preemption. `make parity-matrix` runs all architectures and writes docs/parity.md.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parity_page
import peft_oracle
import pytest
import torch
from fake_runner import ListSink
from peft_oracle import BASE, FEATURES, NEW_TOKENS, PROMPT, adapter_directory
from safetensors.torch import load_file
from tiny_adapter import make_adapter
from tiny_engine import TinyEngine, output

from switchyard.server.engine.types import (
    AdapterSelection,
    FinishedEvent,
    KvRow,
    SamplingParams,
    SequenceSlice,
    StepPlan,
)
from switchyard.server.model.batch import StepBatch, StepTensors, build_batch
from switchyard.server.model.loading import LoadedBase, load_base
from switchyard.server.native import library

pytestmark = pytest.mark.slow

TOLERANCE = 2e-3
ALWAYS = ("llama", "bloom", "gpt2")
"""Run by `make test`; one of the fast path and two of the general path, fused projections and transposed weights."""
EVERY = tuple(peft_oracle.LINEARS)
MIXED_ADAPTERS = 16
SUBJECTS = (BASE, *FEATURES)
PAGE = Path(__file__).parents[2] / "docs" / "parity.md"

Answers = dict[str, tuple[tuple[int, str], ...]]
"""By feature, the tokens of an answer, each with a digest of the logits that it was chosen from."""


class WatchedEngine(TinyEngine):
    """Remembers the bits of all logits that a token was chosen from."""

    def __init__(self, base: LoadedBase, **options: Any) -> None:
        super().__init__(base, **options)
        self._digests: dict[str, list[str]] = defaultdict(list)
        compute = self.runner.compute

        def watched(batch: StepBatch) -> StepTensors:
            tensors = compute(batch)
            for piece, row in zip(batch.sampled, tensors.logits[: len(batch.sampled)], strict=True):
                self._digests[piece.request_id].append(hashlib.sha256(row.numpy().tobytes()).hexdigest())
            return tensors

        self.runner.compute = watched  # type: ignore[method-assign]

    def ask(self, prompt: tuple[int, ...], selection: AdapterSelection | None, **options: int) -> Ask:
        """Submits a greedy request."""
        sink = self.submit(prompt, selection, **{"max_tokens": NEW_TOKENS, **options})
        return Ask(sink, self._digests[f"r{self._count}"])


@dataclass
class Ask:
    """A request under way, and the digests of its logits."""

    sink: ListSink
    digests: list[str]

    @property
    def finished(self) -> FinishedEvent | None:
        last = self.sink.events[-1] if self.sink.events else None
        return last if isinstance(last, FinishedEvent) else None

    @property
    def tokens(self) -> tuple[int, ...]:
        return output(self.sink)

    @property
    def answer(self) -> tuple[tuple[int, str], ...]:
        return tuple(zip(self.tokens, self.digests, strict=True))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        chosen = EVERY if metafunc.config.getoption("--parity-page") else ALWAYS
        metafunc.parametrize("architecture", chosen, scope="module")


@dataclass
class Served:
    """What one architecture answered.

    Attributes:
        reference: of PEFT, by `<feature>/<what>`.
        refused: why, by feature.
        logits: along the prompt, by feature.
        answers: greedy tokens by way of serving and feature.
    """

    reference: dict[str, torch.Tensor]
    refused: dict[str, str]
    logits: dict[str, torch.Tensor]
    answers: dict[str, Answers]


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases, adapters and references of all architectures, made by one other process."""
    place = tmp_path_factory.mktemp("matrix")
    chosen = EVERY if request.config.getoption("--parity-page") else ALWAYS
    support = str(Path(peft_oracle.__file__).parent)
    subprocess.run(
        [sys.executable, peft_oracle.__file__, str(place), *chosen],
        env={**os.environ, "PYTHONPATH": support, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return place


@pytest.fixture(scope="module")
def served(architecture: str, root: Path) -> Served:
    base = load_base(str(root / architecture))
    directories = {feature: adapter_directory(root, architecture, feature) for feature in FEATURES}
    engine = WatchedEngine(base, slots=20, sequences=24, chunk=256)
    selections: dict[str, AdapterSelection | None] = {BASE: None}
    refused: dict[str, str] = {}
    alone: Answers = {}
    for feature in SUBJECTS:
        selection = engine.adapter(directories[feature]) if feature != BASE else None
        ask = engine.ask(PROMPT, selection)
        engine.run()
        if ask.finished is None:
            refused[feature] = str(ask.sink.events[-1].error)
        else:
            selections[feature], alone[feature] = selection, ask.answer
    targets = peft_oracle.LINEARS[architecture]
    more = [
        make_adapter(root / architecture, root / f"{architecture}-{n}", seed=50 + n, targets=targets)
        for n in range(MIXED_ADAPTERS - len(FEATURES))
    ]
    return Served(
        reference=load_file(root / f"{architecture}.safetensors"),
        refused=refused,
        logits={feature: _logits(engine, selection) for feature, selection in selections.items()},
        answers={
            "alone": alone,
            "mixed": _mixed(engine, selections, more),
            "streamed": _streamed(engine, selections),
            **_chunked_and_cached(WatchedEngine(base, slots=20, cached_blocks=48), selections, directories),
            "preempted": _preempted(WatchedEngine(base, slots=20, sequences=1), selections, directories),
        },
    )


def _logits(engine: WatchedEngine, selection: AdapterSelection | None) -> torch.Tensor:
    """[n, vocab] float32 from the middle of the prompt on: half of it as a prompt, the rest token by token."""
    half = len(PROMPT) // 2
    slot = None
    if selection is not None:
        engine.tokens(PROMPT[:4], selection, max_tokens=1)
        slot = engine.host.acquire(selection, engine.clock.now())
        assert slot is not None
    rows = []
    for start, stop in [(0, half), *((p, p + 1) for p in range(half, len(PROMPT)))]:
        piece = SequenceSlice(
            "r", KvRow(0), start, PROMPT[start:stop], slot, True, SamplingParams(), 0, PROMPT[:half]
        )
        rows.append(engine.runner.compute(build_batch(StepPlan((piece,)))).logits[0])
    if selection is not None:
        engine.host.release(selection.key, engine.clock.now())
    engine.runner.release_row(0)
    return torch.stack(rows)


def _mixed(engine: WatchedEngine, selections: dict[str, AdapterSelection | None], more: list[Path]) -> Answers:
    """All at once, with adapters that nobody asks about and rows of the base among them."""
    asks = {}
    others = [engine.ask(PROMPT[9:], engine.adapter(directory)) for directory in more]
    for index, (feature, selection) in enumerate(selections.items()):
        asks[feature] = engine.ask(PROMPT, selection)
        if index % 4 == 0:
            others.append(engine.ask(PROMPT[index + 1 :], None))
    engine.run()
    assert all(len(ask.tokens) == NEW_TOKENS for ask in others)
    return {feature: ask.answer for feature, ask in asks.items()}


def _streamed(engine: WatchedEngine, selections: dict[str, AdapterSelection | None]) -> Answers:
    """Token by token as the events bring them, while another answer runs."""
    answers = {}
    for feature, selection in selections.items():
        ask, other = engine.ask(PROMPT, selection), engine.ask(PROMPT[3:], None, max_tokens=2)
        lengths = set()
        while ask.finished is None:
            engine.engine.step()
            lengths.add(len(ask.tokens))
        engine.run()
        assert len(other.tokens) == 2
        assert lengths >= set(range(1, NEW_TOKENS)), "tokens came together"
        answers[feature] = ask.answer
    return answers


def _chunked_and_cached(
    engine: WatchedEngine, selections: dict[str, AdapterSelection | None], directories: dict[str, Path]
) -> dict[str, Answers]:
    chunked, cached = {}, {}
    for feature in selections:
        selection = engine.adapter(directories[feature]) if feature != BASE else None
        first = engine.ask(PROMPT, selection)
        engine.run()
        second = engine.ask(PROMPT, selection)
        engine.run()
        assert [ask.finished and ask.finished.cached_prompt_tokens for ask in (first, second)] == [0, 64]
        chunked[feature], cached[feature] = first.answer, second.answer
    return {"chunked prefill": chunked, "prefix cache": cached}


def _preempted(
    engine: WatchedEngine, selections: dict[str, AdapterSelection | None], directories: dict[str, Path]
) -> Answers:
    """Thrown out of the only row in the middle of its answer by a request of higher priority."""
    answers = {}
    for feature in selections:
        selection = engine.adapter(directories[feature]) if feature != BASE else None
        ask = engine.ask(PROMPT, selection)
        while len(ask.tokens) < NEW_TOKENS // 2:
            engine.engine.step()
        before = len(ask.tokens)
        urgent = engine.ask(PROMPT[5:], None, max_tokens=2, priority=1)
        while urgent.finished is None:
            engine.engine.step()
        assert len(ask.tokens) == before, "it was not preempted"
        engine.run()
        answers[feature] = ask.answer
    return answers


@pytest.fixture(scope="session")
def cells(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], str]]:
    """What was found, by feature and architecture; a whole run writes it to the page at the end."""
    found: dict[tuple[str, str], str] = {}
    yield found
    target: Path | None = request.config.getoption("--parity-page")
    if target is not None:
        target.write_text(parity_page.render(found, TOLERANCE), encoding="utf-8")


def test_every_cell_is_what_the_page_says(
    architecture: str, served: Served, cells: dict[tuple[str, str], str], request: pytest.FixtureRequest
) -> None:
    cells |= {(feature, architecture): served.refused.get(feature, "mixed") for feature in SUBJECTS}
    if request.config.getoption("--parity-page") is None:
        page = parity_page.column(PAGE.read_text(encoding="utf-8"), architecture)
        assert page == {feature: "refused" if feature in served.refused else "mixed" for feature in SUBJECTS}


def test_the_page_has_every_architecture() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(set(parity_page.column(page, architecture)) == set(SUBJECTS) for architecture in EVERY)


@pytest.mark.parametrize("feature", SUBJECTS)
def test_logits_and_tokens_are_those_of_peft(served: Served, feature: str) -> None:
    if feature in served.refused:
        return
    expected = served.reference[f"{feature}/logits"][len(PROMPT) // 2 - 1 :]
    if feature != BASE:
        plain = served.reference[f"{BASE}/logits"][len(PROMPT) // 2 - 1 :]
        assert (expected - plain).abs().max() > 20 * TOLERANCE, "it must change answers"
    torch.testing.assert_close(served.logits[feature], expected, rtol=0, atol=TOLERANCE)
    tokens, margins = served.reference[f"{feature}/tokens"].tolist(), served.reference[f"{feature}/margins"]
    for (token, _), theirs, margin in zip(served.answers["alone"][feature], tokens, margins, strict=True):
        if token != theirs:
            assert margin <= 2 * TOLERANCE
            break


def _tokens(answers: Answers) -> dict[str, tuple[int, ...]]:
    return {feature: tuple(token for token, _ in answer) for feature, answer in answers.items()}


@pytest.mark.parametrize("way", ["mixed", "streamed", "chunked prefill", "prefix cache", "preempted"])
def test_answers_do_not_depend_on_how_they_are_served(served: Served, way: str) -> None:
    alone, found = served.answers["alone"], served.answers[way]
    if way == "preempted" and library.load() is None:
        # In torch a prompt's attention and that of a single token sum in different orders.
        alone, found = _tokens(alone), _tokens(found)
    assert found == alone
    assert len(set(served.answers["alone"].values())) == len(served.answers["alone"])
