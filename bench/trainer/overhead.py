"""`python bench/trainer/overhead.py [ROUNDS]`: the same run by `switchyard train` and in bare TRL; writes trainer-overhead.md.

The demo's address recipe on its base of 158 thousand parameters, cut to 60 steps with a checkpoint each 30 and a log entry
each 10. The smaller the base, the more of a step is ours, so this is the hard case. Every run is a process of its own with
one thread; its CPU time is taken from the first step to the last, checkpoints included. The three kinds take turns, forwards
and then backwards, and each ratio is of neighbours of one round, so that what else runs here weighs on all alike. All
have to end with the same loss: otherwise they were not the same run.

*bare* is TRL's trainer with transformers' own logging, checkpoints and progress bar, and one line more: its adapter is cast
to float32, as the recipe has it. *bare, kept* also tells glibc to keep freed blocks, as `switchyard train` does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "trainer-overhead.md"
STEPS, SAVE, LOG = 60, 30, 10
KINDS = ("switchyard", "bare", "bare, kept")


def child(kind: str, recipe: Path, out: Path) -> None:
    """Trains once and prints CPU seconds, tokens and the final loss."""
    import torch

    torch.set_num_threads(1)
    spent = ours(recipe, out) if kind == KINDS[0] else bare(recipe, out, keeps=kind == KINDS[2])
    print(json.dumps(spent))


def ours(recipe: Path, out: Path) -> dict[str, float]:
    """As the command runs it, with the bar of a terminal."""
    from rich.console import Console

    from switchyard.trainer.events import RunEnded, RunEvent, RunStarted
    from switchyard.trainer.progress import progress_for
    from switchyard.trainer.recipe_file import load_recipe
    from switchyard.trainer.run import train

    class Clock:
        began = ended = 0.0

        def receive(self, event: RunEvent) -> None:
            if isinstance(event, RunStarted):
                self.began = time.process_time()
            if isinstance(event, RunEnded):
                self.ended = time.process_time()

    clock = Clock()
    with Path(os.devnull).open("w") as nowhere, progress_for(Console(file=nowhere, force_terminal=True)) as bar:
        result = train(load_recipe(recipe), out_dir=out, listeners=[clock, bar], threads=1)
    figures = result.figures
    return {"cpu_s": clock.ended - clock.began, "tokens": figures.tokens, "loss": figures.final_loss}


def bare(recipe: Path, out: Path, *, keeps: bool) -> dict[str, float]:
    """What a script without this project does."""
    import torch
    import yaml
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from switchyard.trainer.allocator import keep_freed_memory

    if keeps:
        keep_freed_memory()
    said = yaml.safe_load(recipe.read_text())
    rows = [json.loads(line) for line in Path(said["data"]["train"]).read_text().splitlines()]
    times = {}

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            times["began"] = time.process_time()

        def on_train_end(self, *_: object, **__: object) -> None:
            times["ended"] = time.process_time()

    trainer = SFTTrainer(
        model=said["base"]["path"],
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        args=SFTConfig(
            output_dir=str(out),
            max_steps=STEPS,
            per_device_train_batch_size=said["train"]["batch_size"],
            learning_rate=said["train"]["learning_rate"],
            lr_scheduler_type=said["train"]["schedule"],
            warmup_steps=said["train"]["warmup_steps"],
            max_length=said["train"]["max_length"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            logging_steps=LOG,
            logging_first_step=True,
            save_steps=SAVE,
            save_total_limit=2,
            seed=said["train"]["seed"],
            data_seed=said["train"]["seed"],
            report_to=[],
            model_init_kwargs={"dtype": torch.float32},
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=said["lora"]["r"], lora_alpha=said["lora"]["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Clock()],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "cpu_s": times["ended"] - times["began"],
        "tokens": log[-1]["num_tokens"],
        "loss": log[-1]["loss"],
    }


def write_recipe(directory: Path) -> Path:
    """Writes the demo's data and the shortened recipe with absolute paths."""
    import yaml

    from switchyard.trainer.demo_data import write_demo_data

    path = next(one for one in write_demo_data(directory, seed=0) if one.parent.name == "address")
    said = yaml.safe_load(path.read_text())
    said["base"] = {"path": str((path.parent / said["base"]["path"]).resolve())}
    said["data"] = {"train": str((path.parent / said["data"]["train"]).resolve())}
    said["train"] |= {"max_steps": STEPS, "log_steps": LOG}
    said["checkpoints"] = {"every_steps": SAVE}
    short = directory / "short.yaml"
    short.write_text(yaml.safe_dump(said))
    return short


def run(kind: str, recipe: Path, out: Path) -> dict[str, float]:
    """One process."""
    done = subprocess.run(
        [sys.executable, "-P", __file__, "--child", kind, str(recipe), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{kind} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{kind:12} {found['cpu_s']:6.2f} CPU s, loss {found['loss']:.6f}", flush=True)
    return found


def main(rounds: int) -> None:
    """Measures, prints and writes the page."""
    spent: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        recipe = write_recipe(Path(name))
        for number in range(rounds):
            order = KINDS if number % 2 == 0 else KINDS[::-1]
            spent.append({kind: run(kind, recipe, Path(name) / f"{number}-{kind}") for kind in order})
    # transformers rounds what it logs to four significant digits of a step's mean.
    losses = {f"{one['loss']:.3f}" for found in spent for one in found.values()}
    tokens = {int(one["tokens"]) for found in spent for one in found.values()}
    if len(losses) > 1 or len(tokens) > 1:
        raise RuntimeError(f"these were not the same runs: losses {losses}, tokens {tokens}")
    ratios = {kind: [found[kind]["cpu_s"] / found[KINDS[0]]["cpu_s"] for found in spent] for kind in KINDS}
    rows = [
        f"| {kind} | {', '.join(format(found[kind]['cpu_s'], '.2f') for found in spent)} "
        f"| {statistics.median(ratios[kind]):.3f} | {min(ratios[kind]):.3f} to {max(ratios[kind]):.3f} |"
        for kind in KINDS
    ]
    RESULTS.write_text(
        "\n".join(
            [
                "# What `switchyard train` costs over bare TRL",
                "",
                f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} shared cores (other work beside it), one thread, {rounds} rounds in turns. The demo's address recipe, {STEPS} steps of",
                f"16 rows on a base of 158 thousand parameters, log entries each {LOG} steps, checkpoints each {SAVE}; {tokens.pop():,} tokens, and the same final loss",
                f"({losses.pop()}) in every run. CPU time from the first step to the last; the ratio is tokens per CPU second of `switchyard train` over that of the row.",
                "",
                "| kind | CPU s of each round | median ratio | range |",
                "|---|---|---|---|",
                *rows,
                "",
                "*bare* is TRL's trainer with its adapter cast to float32; *bare, kept* also tells glibc to keep freed blocks, as `switchyard train` does, so",
                "its row is the cost of what surrounds a step.",
                "",
            ]
        )
    )
    print(RESULTS.read_text())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
