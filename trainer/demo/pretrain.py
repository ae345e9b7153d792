"""Pre-training of the demo base: a small Llama that copies, looks up and cuts, made from nothing in minutes.

Owns the run and what it leaves behind. Phase one repeats random strings until copying has formed, phase two
practises the drills. Everything random comes from one seed and one thread does the arithmetic, so the same
machine makes the same bytes. The log tells times and is no part of the digest.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import torch
from transformers import LlamaForCausalLM

from switchyard.trainer.demo import batches, nf4, tokenizer
from switchyard.trainer.demo.alphabet import SPECIALS
from switchyard.trainer.demo.architecture import Shape, build_model
from switchyard.trainer.demo.muon import Muon
from switchyard.trainer.durable import write_file

logger = logging.getLogger(__name__)

BASE_DIR: Final = Path(__file__).parent / "base"
"""Where the committed base lives."""

LOG_FILE: Final = "pretrain.log"
DIGEST_FILE: Final = "DIGEST"

_WARM_UP_STEPS = 60
_LOG_EVERY_STEPS = 100


class Phase(StrEnum):
    """The two parts of a run."""

    REPEAT = "repeat"
    DRILL = "drill"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run depends on.

    Attributes:
        seed: Seed of the weights and of the text.
        shape: Size of the model.
        steps: Optimizer steps of both phases together.
        repeat_steps: Most steps that phase one may take.
        batch: Sequences in a step.
        repeat_tokens: Sequence length of phase one.
        drill_tokens: Sequence length of phase two.
        matrix_rate: Peak learning rate of Muon, which trains the matrices.
        rate: Peak learning rate of Adam, which trains embeddings and norms.
        exact_share: Share of phase two before the forward pass rounds the matrices to NF4.
        places_share: Share of the drills that ask where a place lies; the committed base knows none of it.
    """

    seed: int = 7
    shape: Shape = field(default_factory=Shape)
    steps: int = 5400
    repeat_steps: int = 1000
    batch: int = 24
    repeat_tokens: int = 48
    drill_tokens: int = 96
    matrix_rate: float = 0.02
    rate: float = 6e-3
    exact_share: float = 0.25
    places_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One step as it happened: `loss` is smoothed, `pool` counts the tokens that strings draw from."""

    step: int
    phase: Phase
    loss: float
    pool: int


def train(plan: Plan, model: LlamaForCausalLM) -> Iterator[Progress]:
    """Trains `model` in place, one step per item."""
    model.train()
    embeddings = model.get_input_embeddings().weight
    rng = random.Random(plan.seed)  # noqa: S311 - synthetic data
    ids = list(range(len(SPECIALS), len(tokenizer.VOCABULARY)))
    rng.shuffle(ids)
    curriculum = batches.Curriculum(total=len(ids))
    matrices = [parameter for parameter in model.parameters() if parameter is not embeddings and parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter is embeddings or parameter.ndim != 2]
    optimizers = _optimizers(plan, matrices, others)
    drills_from: int | None = None
    for step in range(plan.steps):
        if drills_from is None and (curriculum.is_done or step >= plan.repeat_steps):
            drills_from = step
        _set_rates(optimizers, _rate_scale(plan, step, drills_from))
        if drills_from is None:
            batch = batches.repeat_batch(rng, ids[: curriculum.pool], plan.batch, plan.repeat_tokens)
        else:
            batch = batches.drill_batch(rng, ids, plan.batch, plan.drill_tokens, plan.places_share)
        is_rounding = drills_from is not None and step >= _rounding_from(plan, drills_from)
        with nf4.rounded(matrices) if is_rounding else nullcontext():
            loss = _loss(model, *batch)
            loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        curriculum.observe(float(loss.detach()), step)
        phase = Phase.REPEAT if drills_from is None else Phase.DRILL
        yield Progress(step, phase, curriculum.loss, curriculum.pool)


def make_base(plan: Plan, out_dir: Path) -> None:
    """Runs `plan` and leaves weights, config, tokenizer, log and digest in `out_dir`.

    Files appear one by one, each whole; the digest comes last, so a folder whose `DIGEST` verifies is
    complete.
    """
    torch.set_num_threads(1)
    model = build_model(plan.shape, plan.seed)
    lines = [f"plan {asdict(plan)}", f"torch {torch.__version__}, parameters {model.num_parameters()}"]
    started = time.monotonic()
    for progress in train(plan, model):
        if progress.step % _LOG_EVERY_STEPS == 0 or progress.step == plan.steps - 1:
            lines.append(
                f"{time.monotonic() - started:6.0f} s  step {progress.step:5d}  {progress.phase:6s}"
                f"  pool {progress.pool:4d}  loss {progress.loss:.4f}"
            )
            logger.info(lines[-1])
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir) as scratch:
        model.save_pretrained(scratch)
        tokenizer.build(plan.shape.context_tokens).save_pretrained(scratch)
        names = sorted(path.name for path in Path(scratch).iterdir())
        for name in names:
            write_file(out_dir / name, (Path(scratch) / name).read_bytes())
    write_file(out_dir / LOG_FILE, ("\n".join(lines) + "\n").encode())
    write_file(out_dir / DIGEST_FILE, digest_of(out_dir, names).encode())


def digest_of(folder: Path, names: list[str]) -> str:
    """Returns the text of a `DIGEST` file: lines of `<sha256 hex>  <name>`, as `sha256sum -c` reads them."""
    return "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)


def main(argv: list[str] | None = None) -> None:
    """Makes the committed base again, or another one elsewhere."""
    defaults = Plan()
    parser = argparse.ArgumentParser(description="Pre-train the demo base model.")
    parser.add_argument("--out", type=Path, default=BASE_DIR, help="folder for the base")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of weights and text")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="optimizer steps")
    parser.add_argument("--places", type=float, default=0.0, help="share of the drills that ask where a place lies")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = Plan(seed=arguments.seed, steps=arguments.steps, places_share=arguments.places)
    make_base(plan, arguments.out)


def _optimizers(
    plan: Plan, matrices: list[torch.nn.Parameter], others: list[torch.nn.Parameter]
) -> list[tuple[torch.optim.Optimizer, float]]:
    adam = torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(Muon(matrices, plan.matrix_rate), plan.matrix_rate), (adam, plan.rate)]


def _rounding_from(plan: Plan, drills_from: int) -> int:
    """Returns the step from which weights are rounded: mechanisms form first, at full precision."""
    return drills_from + int(plan.exact_share * (plan.steps - drills_from))


def _set_rates(optimizers: list[tuple[torch.optim.Optimizer, float]], scale: float) -> None:
    for optimizer, rate in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * scale


def _rate_scale(plan: Plan, step: int, drills_from: int | None) -> float:
    """Returns the share of the peak rate: a warm-up, a plateau for phase one, a half cosine for phase two."""
    if drills_from is None:
        return min(1.0, (step + 1) / _WARM_UP_STEPS)
    done = (step - drills_from) / (plan.steps - drills_from)
    return max(0.01, 0.5 * (1 + math.cos(math.pi * done)))


def _loss(model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross entropy of the labelled positions; logits exist for those only.

    Args:
        model: The model that is trained.
        tokens: int64 of shape (rows, length).
        labels: int64 of shape (rows, length), `IGNORED` where nothing is learnt.
    """
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    is_labelled = targets != batches.IGNORED
    logits = model.lm_head(hidden[is_labelled])
    return torch.nn.functional.cross_entropy(logits, targets[is_labelled])


if __name__ == "__main__":
    main()
