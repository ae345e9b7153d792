"""One adapter on its base in other precisions: what it is worth where it was not trained.

`python bench/headline/precisions.py SEED_PLACE ROWS OUT` asks the first ROWS plain and harder test rows of one seed in
each precision, greedily and with PEFT, and writes the right answers by precision as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import material
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from switchyard.trainer.base_model import keep_unpacked
from switchyard.trainer.demo.addresses import is_exact
from switchyard.trainer.demo.rows import Row
from switchyard.trainer.quiet import quiet_libraries

BATCH, MAX_TOKENS = 64, 64


def four_bits(kind: str) -> BitsAndBytesConfig:
    """Returns the setting of training, or the same with the other 4-bit type."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def load(base: Path, config: BitsAndBytesConfig | None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Loads the base in one precision."""
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=dtype, device_map={"": "cpu"}
    )
    keep_unpacked(model)
    return model


def precisions(base: Path, adapter: Path) -> dict[str, Callable[[], torch.nn.Module]]:
    """Returns how to make each model of the table, by its row."""

    def on(model: PreTrainedModel) -> PeftModel:
        return PeftModel.from_pretrained(model, str(adapter))

    return {
        "NF4 base + adapter (as trained)": lambda: on(load(base, four_bits("nf4"))),
        "merged into the dequantised NF4 base": lambda: on(
            load(base, four_bits("nf4")).dequantize()
        ).merge_and_unload(),
        "merged in place into NF4 (quantised again)": lambda: on(load(base, four_bits("nf4"))).merge_and_unload(),
        "16-bit original + adapter": lambda: on(load(base, None, torch.bfloat16)),
        "32-bit original + adapter": lambda: on(load(base, None)),
        "merged into the 32-bit original": lambda: on(load(base, None)).merge_and_unload(),
        "INT8 base + adapter": lambda: on(load(base, BitsAndBytesConfig(load_in_8bit=True))),
        "FP4 base + adapter": lambda: on(load(base, four_bits("fp4"))),
    }


@torch.inference_mode()
def right(model: torch.nn.Module, base: Path, rows: Sequence[Row]) -> int:
    """Counts the rows that a model has exactly right."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    count = 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        asked = tokenizer(
            [row.prompt for row in part], return_tensors="pt", padding=True, return_token_type_ids=False
        )
        found = model.generate(**asked, max_new_tokens=MAX_TOKENS, do_sample=False)
        texts = tokenizer.batch_decode(found[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        count += sum(is_exact(text, row.completion) for text, row in zip(texts, part, strict=True))
    return count


def main() -> None:
    """Measures every precision; what is measured already is kept."""
    place, count, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    base = place / "base"
    rows = {form: of_form[:count] for form, of_form in material.test_rows().items()}
    table: dict[str, dict[str, int]] = json.loads(out.read_text()) if out.exists() else {}
    torch.set_num_threads(1)
    with quiet_libraries():
        made = {form: precisions(base, place / form / "run" / "adapter") for form in rows}
        for name in made["plain"]:
            if name not in table:
                table[name] = {form: right(made[form][name]().eval(), base, rows[form]) for form in rows}
                out.write_text(json.dumps(table, indent=1))
                print(name, table[name], flush=True)


if __name__ == "__main__":
    main()
