"""Whatever the trainer publishes is served through gRPC with the answers of plain PEFT on the same base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from served import start_server, stop_server
from tiny_adapter import load_nf4
from tiny_base import make_tiny_llama
from trained_kinds import KINDS

from switchyard.clients.inference import InferenceClient
from switchyard.registry.refs import AdapterName
from switchyard.trainer.explain import explain
from switchyard.trainer.publish import PublishTarget, publish_run
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.run import train

PROMPTS = ("say 1:", "say 23:", "the quick brown fox")
NEW_TOKENS = 8
TOLERANCE = 2e-3

pytestmark = pytest.mark.slow


@dataclass
class Served:
    """A server and where the adapters that it serves were trained."""

    client: InferenceClient
    address: str
    base: Path
    method: str
    root: Path

    def oracle(self, kind: str | None) -> Any:
        """Plain PEFT with the published files, or the base alone."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        if self.method == "nf4":
            base = load_nf4(self.base)
        else:
            int8 = BitsAndBytesConfig(load_in_8bit=True) if self.method == "int8" else None
            base = AutoModelForCausalLM.from_pretrained(self.base, quantization_config=int8, dtype=torch.float32)
        if kind is None:
            return base.eval()
        return PeftModel.from_pretrained(base, str(self.root / kind / "out" / "adapter")).eval()

    def publish(self, kind: str) -> None:
        """Trains and publishes, and checks that what was foreseen came true."""
        recipe = load_recipe(KINDS[kind].write(self.root / kind, self.base, kind))
        foreseen = explain(recipe)
        result = train(recipe, out_dir=self.root / kind / "out", threads=1)
        figures = result.figures
        assert foreseen.trainable_parameters == figures.trainable_parameters
        assert foreseen.base_parameters + foreseen.trainable_parameters == figures.total_parameters
        assert (foreseen.steps, foreseen.rows) == (figures.steps, figures.rows)
        publish_run(result, PublishTarget(AdapterName("team", kind), "candidate", None, self.address))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    """Makes at most one server per quantisation."""
    base = make_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")
    running: dict[str, tuple[Served, Any]] = {}

    def make(method: str) -> Served:
        if method not in running:
            root = tmp_path_factory.mktemp(method)
            process, addresses = start_server(base, root, "--quantization", method)
            client = InferenceClient(addresses["grpc"])
            running[method] = Served(client, addresses["grpc"], base, method, root), process
        return running[method][0]

    yield make
    for server, process in running.values():
        server.client.close()
        assert stop_server(process) == 0


def logprobs(model: Any, tokens: list[int]) -> torch.Tensor:
    """[T, vocab] float32."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_adapter_is_served_as_peft_answers(served: Callable[[str], Served], kind: str) -> None:
    server = served(KINDS[kind].quantization)
    server.publish(kind)
    oracle, bare = server.oracle(kind), server.oracle(None)
    learnt = 0.0
    for prompt in PROMPTS:
        answer = server.client.generate(
            prompt,
            adapter=f"team/{kind}@candidate",
            max_tokens=NEW_TOKENS,
            ignore_eos=True,
            prompt_logprobs=1,
            logprobs=2,
        )
        said = [one.token_id for one in answer.prompt_logprobs]
        tokens = [tokenised(server.base, prompt)[0], *said, *answer.token_ids]
        assert tokens[: len(said) + 1] == tokenised(server.base, prompt)
        expected = logprobs(oracle, tokens)
        learnt = max(learnt, float((expected - logprobs(bare, tokens)).abs().max()))
        for place, one in enumerate([*answer.prompt_logprobs, *answer.logprobs]):
            assert one.logprob == pytest.approx(float(expected[place, one.token_id]), abs=TOLERANCE)
            for top in one.top:
                assert top.logprob == pytest.approx(float(expected[place, top.token_id]), abs=TOLERANCE)
        for place, token in enumerate(answer.token_ids, start=len(said)):
            assert float(expected[place].max() - expected[place, token]) <= 2 * TOLERANCE
    # Served without the adapter, or with another one, the same numbers would not come out.
    assert learnt > 50 * TOLERANCE


def tokenised(base: Path, prompt: str) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(base)(prompt)["input_ids"])
