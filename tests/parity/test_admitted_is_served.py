"""What the publish gate admits is served, with the logits of PEFT on the same base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parity_measure import served_logits
from peft import PeftConfig
from peft_kinds import ADMITTED, saved
from tiny_adapter import peft_logits
from tiny_base import make_tiny_llama
from tiny_engine import TinyEngine

from switchyard.server.model.loading import LoadedBase, load_base

PROMPT = (1, 50, 120, 7, 250, 33, 96, 4)
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, LoadedBase]]:
    root = tmp_path_factory.mktemp("bases")
    known: dict[str, tuple[Path, LoadedBase]] = {}

    def make(architecture: str) -> tuple[Path, LoadedBase]:
        if architecture not in known:
            directory = make_tiny_llama(root / architecture, architecture=architecture)
            known[architecture] = directory, load_base(str(directory))
        return known[architecture]

    return make


@pytest.mark.parametrize(
    ("architecture", "config"),
    [case[:2] for case in ADMITTED],
    ids=[f"{case[0]}-{n}" for n, case in enumerate(ADMITTED)],
)
def test_an_admitted_adapter_is_served(
    architecture: str,
    config: Callable[[], PeftConfig],
    base_of: Callable[[str], tuple[Path, LoadedBase]],
    tmp_path: Path,
) -> None:
    directory, base = base_of(architecture)
    adapter = saved(directory, config(), tmp_path / "a")
    engine = TinyEngine(base)
    expected = peft_logits(directory, adapter, PROMPT)
    assert (expected - peft_logits(directory, None, PROMPT)).abs().max() > 10 * TOLERANCE
    served = served_logits(engine, engine.adapter(adapter), PROMPT)
    torch.testing.assert_close(served, expected[len(PROMPT) // 2 - 1 :], rtol=0, atol=TOLERANCE)
