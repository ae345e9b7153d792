"""`python bench/knowledge/run.py`: new facts learnt from pages, and what that costs; writes knowledge.md, .json and .png.

A base is made, or taken from `--place`. Adapters are trained on pages about the new yards: on them alone, and on
them together with text of the kind that the base was made of. Base and adapters are asked through a server, greedily: about
the new yards, about old yards that nobody ever asked about, and to write words backwards. An answer counts when it is
the expected text.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import world
import world_base
from knowledge_page import write_page

from switchyard.clients.inference import InferenceClient
from switchyard.registry.refs import AdapterName
from switchyard.server.measure.wire import server
from switchyard.trainer.publish import PublishTarget, publish_run
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.run import train

RESULTS = Path(__file__).parents[1] / "results"
PLAN = world_base.Plan()
NEW_YARDS = 24
TASKS = {
    "new facts": "of the pages",
    "old facts": "read by the base, never asked",
    "backwards": "an order of the base",
}
RECIPE = """
name: {name}
base: {{path: ../base}}
data: {{train: pages, format: text}}
lora: {{r: 32, alpha: 64}}
train: {{epochs: {passes}, batch_size: 2, max_length: 128, learning_rate: 2e-3, warmup_steps: 8}}
checkpoints: {{every_steps: null}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How an adapter is trained.

    Attributes:
        tellings: paragraphs about each new yard.
        rehearsed: texts of the kind that the base was made of.
        passes: over all of it.
    """

    tellings: int
    rehearsed: int
    passes: int


WAYS = {
    "pages": Way(3, 0, 20),
    "pages-rehearsed": Way(3, 300, 20),
    "more-pages-rehearsed": Way(10, 800, 6),
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run took.

    Attributes:
        chunks: sequences of 128 tokens, the last one shorter.
        tokens: of one pass.
        steps: optimizer steps.
        loss: of the last log entry, in nats.
        train_s: seconds of training.
    """

    chunks: int
    tokens: int
    steps: int
    loss: float
    train_s: float


def write_pages(directory: Path, way: Way) -> None:
    """Writes one page per telling of all new yards, and what is rehearsed with them."""
    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(3)  # noqa: S311 - a made-up world
    for number in range(way.tellings):
        paragraphs = "".join(json.dumps({"text": world.told(yard, draw)}) + "\n" for yard in new_yards())
        (directory / f"page-{number}.jsonl").write_text(paragraphs)
    if way.rehearsed:
        lines = islice(world_base.texts(PLAN, 55), way.rehearsed)
        (directory / "rehearsed.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in lines))


def new_yards() -> list[world.Yard]:
    """The yards that only the pages tell of."""
    return world.yards(NEW_YARDS, 100, world.yards(PLAN.old_yards, PLAN.seed))


def asked() -> dict[str, list[world.Asked]]:
    """Every question by task."""
    draw = random.Random(5)  # noqa: S311 - a made-up world
    unasked = world.yards(PLAN.old_yards, PLAN.seed)[PLAN.asked_yards :]
    return {
        "new facts": [one for yard in new_yards() for one in world.questions(yard)],
        "old facts": [one for yard in unasked for one in world.questions(yard)],
        "backwards": [world.backwards(draw) for _ in range(180)],
    }


def make_adapter(place: Path, name: str, way: Way) -> Trained:
    """Trains on the pages and publishes."""
    write_pages(place / name / "pages", way)
    recipe = place / name / "recipe.yaml"
    recipe.write_text(RECIPE.format(name=name, passes=way.passes))
    out = place / name / f"out-{time.time_ns()}"
    result = train(load_recipe(recipe), out_dir=out, threads=1)
    publish_run(result, PublishTarget(AdapterName.parse(name), "candidate", registry=place / "registry", server=None))
    figures = result.figures
    return Trained(
        figures.rows.sequences, figures.rows.tokens, figures.steps, figures.final_loss, round(figures.train_s, 1)
    )


def answers(client: InferenceClient, questions: list[world.Asked], ref: str | None) -> list[str]:
    """What the base, or an adapter, says to each question."""

    def ask(one: world.Asked) -> str:
        answer = client.generate(one.prompt, adapter=ref, base=ref is None, max_tokens=8)
        return answer.text.strip()

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, questions))


def main() -> None:
    """Makes what is missing, measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, default=Path("build/knowledge"), help="where base and runs are kept")
    place: Path = parser.parse_args().place
    if not (place / "base" / "model.safetensors").exists():
        world_base.pretrain(PLAN, place / "base")
    runs = {name: make_adapter(place, name, way) for name, way in WAYS.items()}
    tasks = asked()
    who = {"base": None, **{name: f"{name}@candidate" for name in runs}}
    with (
        server(place / "base", place / "registry", {"threads": 1}, place / "serve.log") as address,
        InferenceClient(address) as client,
    ):
        said = {
            name: {task: answers(client, questions, ref) for task, questions in tasks.items()}
            for name, ref in who.items()
        }
    write_page(RESULTS, TASKS, tasks, said, runs)


if __name__ == "__main__":
    main()
