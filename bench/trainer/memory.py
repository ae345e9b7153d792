"""`python bench/trainer/memory.py`: the estimate of `train --explain` against real runs; writes trainer-memory.md.

Each run is a process of its own, as `switchyard train` runs it. Measured is its anonymous memory (RssAnon) at the
highest value seen, sampled from outside every four milliseconds, and the CPU time from the first step to the last.
Beside it each shape runs with an allocator that keeps every freed block, to show what giving large ones back costs.
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
KEEP_ALL_BYTES = 256 * MIB
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
    from switchyard.trainer import run
    from switchyard.trainer.explain import explain
    from switchyard.trainer.recipe_file import load_recipe

    what = load_recipe(recipe)
    if task == "explain":
        print(json.dumps(explain(what).document()))
        return
    from switchyard.trainer import allocator

    if task == "kept":
        allocator.KEPT_BYTES = allocator._HEAP_END_BYTES = KEEP_ALL_BYTES
    steps, spent_s = run._run, 0.0

    def timed(*arguments: object) -> int:
        nonlocal spent_s
        before_s = time.process_time()
        last = steps(*arguments)
        spent_s = time.process_time() - before_s
        return last

    run._run = timed
    run.train(what, out_dir=recipe.parent / task, threads=1)
    print(json.dumps({"cpu_s": spent_s}))


def spawn(task: str, recipe: Path) -> subprocess.Popen[str]:
    """Starts this file again with one task."""
    return subprocess.Popen(
        [sys.executable, __file__, task, str(recipe)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measured(task: str, recipe: Path) -> tuple[float, float]:
    """Peak of a run's memory in MiB, and the CPU time of its steps in seconds."""
    process = spawn(task, recipe)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.004)
    if process.returncode != 0:
        raise RuntimeError(f"the run of {recipe} failed with {process.returncode}")
    return peak / MIB, json.loads(process.stdout.read().splitlines()[-1])["cpu_s"]


def row(shape: Shape) -> str:
    """Measures one shape."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_base(directory / "base", shape)
        recipe = write_recipe(directory, shape)
        said, _ = spawn("explain", recipe).communicate()
        memory = json.loads(said)["memory"]
        estimate = memory["total_bytes"] / MIB
        (holds, cpu_s), (kept, kept_cpu_s) = measured("train", recipe), measured("kept", recipe)
    size = f"{shape.layers} × {shape.hidden}/{shape.mlp}, {shape.batch} × {shape.tokens} tokens"
    cells = [shape.label, size, f"{memory['libraries_bytes'] / MIB:.0f}", f"{estimate:.0f}", f"{holds:.0f}"]
    line = f"| {' | '.join(cells)} | {estimate / holds:.2f} | {kept:.0f} | {cpu_s:.1f} | {kept_cpu_s:.1f} |"
    print(line, flush=True)
    return line


def main() -> None:
    """Measures every shape and writes the table."""
    rows = [row(shape) for shape in SHAPES]
    RESULTS.write_text(
        "\n".join(
            [
                "# Memory of a run: what `train --explain` says, and what was measured",
                "",
                f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} shared cores, one thread, NF4 with double quantisation, rank 16 on all linear layers, float32,",
                f"{STEPS} steps; one run of each. Libraries, estimate and peak are of the whole process, in MiB; the ratio is estimate over peak. The last three columns compare",
                "with an allocator that keeps every freed block: its peak, and the CPU seconds of the steps as they are and with it. On a busy machine CPU time is",
                "noisy.",
                "",
                "| what | layers × hidden/mlp, batch | libraries | estimate | peak | ratio | peak, all kept | CPU s | CPU s, all kept |",
                "|---|---|---|---|---|---|---|---|---|",
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
