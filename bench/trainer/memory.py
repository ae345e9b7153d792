"""`python bench/trainer/memory.py`: the estimate of `train --explain` against real runs; writes trainer-memory.md.

Each run is a process of its own. Measured is the growth of its anonymous memory (RssAnon) from just before the data
are read to the highest value seen, sampled from outside every two milliseconds. Each shape runs twice: with glibc
giving large blocks back at once, which shows what the run needs, and as `switchyard train` sets the allocator, which
shows what it holds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "trainer-memory.md"
MIB = 1024 * 1024
EXACT = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
STEPS = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """One base and one recipe.

    Attributes:
        label: row of the table.
        hidden: width.
        mlp: width of the feed-forward layer.
        layers: number of them.
        batch: rows per forward pass.
        tokens: of the longest row.
        recomputes: whether gradient checkpointing is on.
    """

    label: str
    hidden: int
    mlp: int
    layers: int
    batch: int
    tokens: int
    recomputes: bool


SHAPES = (
    Shape("weights lead", 1024, 2816, 12, 1, 128, False),
    Shape("activations lead", 512, 1536, 6, 4, 512, False),
    Shape("activations recomputed", 512, 1536, 6, 4, 512, True),
)


def write_base(directory: Path, shape: Shape) -> None:
    """Writes a random Llama in bfloat16 with a tokenizer of single letters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    letters = {"<pad>": 0, "</s>": 1, **{chr(97 + index): 2 + index for index in range(26)}}
    config = AutoConfig.for_model(
        "llama",
        vocab_size=8192,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=shape.hidden // 128,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="a"))  # noqa: S106 - not a password
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    marks = {"pad_token": "<pad>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(directory)


def write_recipe(directory: Path, shape: Shape) -> Path:
    """Writes rows, each batch with a longest one and shorter ones, and the recipe."""
    draw = random.Random(0)  # noqa: S311
    with (directory / "rows.jsonl").open("w") as file:
        for index in range(shape.batch * STEPS):
            size = shape.tokens - (draw.randrange(shape.tokens // 4) if index % shape.batch else 0)
            file.write(
                json.dumps({"prompt": "ask", "completion": "".join(draw.choices("abcdef", k=size - 4))}) + "\n"
            )
    train = {
        "max_steps": STEPS,
        "batch_size": shape.batch,
        "max_length": shape.tokens,
        "gradient_checkpointing": shape.recomputes,
        "log_steps": 1,
    }
    recipe = {"name": "memory", "base": {"path": "base"}, "data": {"train": "rows.jsonl"}, "train": train}
    path = directory / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def child(task: str, recipe: Path) -> None:
    """Runs in a process of its own: writes a base, explains, or trains."""
    from switchyard.trainer import run, sft
    from switchyard.trainer.explain import explain
    from switchyard.trainer.recipe_file import load_recipe

    what = load_recipe(recipe)
    if task == "explain":
        print(json.dumps(explain(what).document()))
        return
    import bitsandbytes
    import matplotlib.pyplot

    if task == "exact":
        # Otherwise the run takes the setting of the environment back.
        run.keep_freed_memory = lambda: False
    print(f"ready {bitsandbytes.__version__} {matplotlib.__version__} {sft.__name__}", flush=True)
    sys.stdin.readline()
    run.train(what, out_dir=recipe.parent / task, threads=1)


def spawn(task: str, recipe: Path, extra: dict[str, str]) -> subprocess.Popen[str]:
    """Starts this file again with one task."""
    return subprocess.Popen(
        [sys.executable, __file__, task, str(recipe)],
        env=os.environ | extra,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measured(task: str, recipe: Path) -> int:
    """Growth of a run's memory to its peak, in bytes."""
    process = spawn(task, recipe, EXACT if task == "exact" else {})
    process.stdout.readline()
    before = peak = anonymous_bytes(process.pid)
    process.stdin.write("go\n")
    process.stdin.flush()
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.002)
    if process.returncode != 0:
        raise RuntimeError(f"the run of {recipe} failed with {process.returncode}")
    return peak - before


def row(shape: Shape) -> str:
    """Measures one shape."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_base(directory / "base", shape)
        recipe = write_recipe(directory, shape)
        said, _ = spawn("explain", recipe, {}).communicate()
        estimate = json.loads(said)["memory"]["total_bytes"]
        needs, holds = measured("exact", recipe), measured("kept", recipe)
    size = f"{shape.layers} × {shape.hidden}/{shape.mlp}, {shape.batch} × {shape.tokens} tokens"
    cells = [shape.label, size, f"{estimate / MIB:.0f}", f"{needs / MIB:.0f}", f"{estimate / needs:.2f}"]
    line = "| " + " | ".join([*cells, f"{holds / MIB:.0f}", f"{estimate / holds:.2f}"]) + " |"
    print(line, flush=True)
    return line


def main() -> None:
    """Measures every shape and writes the table."""
    rows = [row(shape) for shape in SHAPES]
    head = "| what | layers × hidden/mlp, batch | estimate MiB | needs MiB | ratio | holds MiB | ratio |"
    RESULTS.write_text(
        "\n".join(
            [
                "# Memory of a run: what `train --explain` says, and what was measured",
                "",
                f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} shared cores, one thread, NF4 with double quantisation, rank 16 on all linear layers, float32,",
                f"{STEPS} steps. *needs* is the peak with an allocator that gives large blocks back at once, *holds* the peak as",
                "`switchyard train` runs, which keeps freed blocks for the next step and so holds fragments too. The ratios are estimate over measured.",
                "",
                head,
                "|---|---|---|---|---|---|---|",
                *rows,
                "",
            ]
        )
    )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
