"""Runs of the four seeds' recipes on tiny bases, each made once when a row first looks at it."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from datasets import Dataset
from tiny_base import make_tiny_llama
from typer.testing import CliRunner

from switchyard.clients.cli import app
from switchyard.trainer import commands

RECIPES = Path(commands.__file__).resolve().parent / "recipes"
SHORT = ("train.epochs=null", "train.max_steps=2", "train.max_length=128", "quantization.compute_dtype=float32")


@dataclass(frozen=True)
class Done:
    """A command that ended well: the line as typed, and what it printed."""

    line: str
    stdout: str
    stderr: str


class SeedRuns:
    """A directory with bases, the recipes with their data, and the output of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runs = 0
        for path in RECIPES.glob("*.yaml"):
            shutil.copy(path, root / path.name)
        draw = random.Random(0)  # noqa: S311 - rows for tests
        _write_pairs(root / "address", draw)
        _write_pages(root / "pages", draw)
        _write_alpaca(root / "alpaca_data_zh")
        _write_prompts(root / "prompts.csv")

    def base(self, architecture: str) -> Path:
        """A tiny base that stands for one of the Hub."""
        place = self.root / f"base-{architecture}"
        return place if place.exists() else make_tiny_llama(place, architecture=architecture)

    def switchyard(self, line: str, *, code: int = 0, variables: Mapping[str, str] | None = None) -> Done:
        """Runs a command line of `switchyard` in this process, with more variables in its environment."""
        done = CliRunner().invoke(app, shlex.split(line), env=variables)
        if done.exit_code != code:
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            raise AssertionError(f"switchyard {line}: {done.exit_code}\n{done.stdout}\n{done.stderr}")
        return Done(f"switchyard {line}".replace(f"{self.root}/", ""), done.stdout, done.stderr)

    def train(self, recipe: str, architecture: str, *changes: str, flags: str = "") -> tuple[Done, Path]:
        """Trains a recipe of `trainer/recipes` on a tiny base; returns the command and its output directory."""
        out = (
            self.root
            / "runs"
            / f"{len(list((self.root / 'runs').glob('*'))) if (self.root / 'runs').exists() else 0}"
        )
        out.parent.mkdir(exist_ok=True)
        sets = " ".join(f"--set {one}" for one in (*SHORT, *changes))
        line = (
            f"train {self.root}/{recipe}.yaml --base {self.base(architecture)} --out {out} {sets} --threads 1 {flags}"
        )
        return self.switchyard(line.strip()), out

    def explain(self, recipe: str, architecture: str, *changes: str) -> tuple[Done, dict[str, object]]:
        """What a recipe would do."""
        sets = " ".join(f"--set {one}" for one in changes)
        done = self.switchyard(
            f"train {self.root}/{recipe}.yaml --base {self.base(architecture)} --explain --json {sets}"
        )
        return done, json.loads(done.stdout)

    @cached_property
    def address(self) -> tuple[Done, Path]:
        """Seed 1: prompt and completion on a Llama, evaluated, published and merged."""
        return self.train(
            "seed1-address",
            "llama",
            "train.eval_steps=1",
            "export.dtype=float16",
            flags=f"--publish demo/address@candidate --registry {self.root}/registry",
        )

    @cached_property
    def knowledge(self) -> tuple[Done, Path]:
        """Seed 2: a directory of pages on a Llama, published."""
        flags = f"--publish demo/yards@candidate --registry {self.root}/registry"
        return self.train("seed2-knowledge", "llama", "export.merged=none", flags=flags)

    @cached_property
    def alpaca(self) -> tuple[Done, Path]:
        """Seed 3: alpaca rows on a BLOOM whose tokenizer pads left."""
        config = self.base("bloom") / "tokenizer_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": "left"}))
        return self.train("seed3-alpaca", "bloom", "train.max_length=256")

    @cached_property
    def prompts(self) -> tuple[Done, Path]:
        """Seed 4: one column of a CSV on a Mistral."""
        return self.train("seed4-prompts", "mistral", "lora.targets=all-linear")


def _write_pairs(directory: Path, draw: random.Random) -> None:
    from switchyard.trainer.demo import addresses
    from switchyard.trainer.demo.rows import write_task

    write_task(addresses.TASK, directory, seed=draw.randrange(100), n_train=24)
    for name in ("dev", "test"):
        lines = (directory / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (directory / f"{name}.jsonl").write_text("".join(lines[:8]))


def _write_pages(directory: Path, draw: random.Random) -> None:
    directory.mkdir()
    for index, ending in enumerate((".txt", ".md", ".html", ".txt")):
        lines = [f"Yard  {draw.randrange(100)} has {draw.randrange(40)} tracks." for _ in range(30)]
        text = "".join(f"<p>{line}</p>" for line in lines) if ending == ".html" else "\n".join(lines)
        (directory / f"page-{index}{ending}").write_text(text)
    (directory / "more.jsonl").write_text(json.dumps({"text": "One row is a document too."}) + "\n")


def _write_alpaca(directory: Path) -> None:
    Dataset.from_list(
        [
            {
                "output": "四" if index % 2 else "3",
                "input": f"{index}" if index % 3 else "",
                "instruction": f"加 {index}",
            }
            for index in range(40)
        ]
    ).save_to_disk(directory)


def _write_prompts(path: Path) -> None:
    rows = [f'"Act {index}","I want you to act as number {index}. " ' for index in range(80)]
    path.write_text("\n".join(["act,prompt", *(row.strip() for row in rows)]) + "\n")
