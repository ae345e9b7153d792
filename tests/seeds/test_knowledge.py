"""Seed 2: new knowledge by continued pre-training."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import yaml
from seed_runs import SHORT, SeedRuns

from switchyard.trainer.base_model import load_tokenizer, locate_base
from switchyard.trainer.columns import Cleaning
from switchyard.trainer.errors import BaseUnusable, RecipeInvalid
from switchyard.trainer.packing import chunks
from switchyard.trainer.recipe import BaseSection
from switchyard.trainer.recipe_file import load_recipe
from switchyard.trainer.row_formats import Row
from switchyard.trainer.token_rows import TokenRow, encode
from tests.seeds.conftest import Said, document


def test_2_3_text_and_pairs_are_two_formats(runs: SeedRuns, said: Said) -> None:
    text, pairs = (document(out / "metrics.json")["rows"] for _, out in (runs.knowledge, runs.address))
    assert text["sequences"] > 0 == pairs["sequences"]
    assert text["trained_tokens"] > 0.9 * text["tokens"]
    assert pairs["trained_tokens"] < 0.9 * pairs["tokens"]
    share = pairs["trained_tokens"] / pairs["tokens"]
    said("data.format: text", f"all of {text['tokens']:,} tokens are learnt; of pairs the answers, {share:.0%}")


def test_2_4_a_base_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseUnusable, match="licence"):
        locate_base(BaseSection(hub="meta-llama/Llama-2-7b-chat-hf"))
    said("base: {hub: meta-llama/…}", "refused: name, network, HF_HUB_OFFLINE, licence to be accepted")


def test_2_5_a_directory_of_pages_is_a_corpus(runs: SeedRuns, said: Said) -> None:
    done, _ = runs.knowledge
    rows = document(runs.knowledge[1] / "metrics.json")["rows"]
    assert rows["rows"] == 5
    said(done.line, "5 documents of .txt, .md, .html and .jsonl; fetching them is left to the user")


def test_2_6_a_token_is_refused(runs: SeedRuns, said: Said) -> None:
    with pytest.raises(RecipeInvalid, match="HF_TOKEN"):
        load_recipe(runs.root / "seed2-knowledge.yaml", [f"name=hf_{'a1' * 16}"])
    with pytest.raises(RecipeInvalid, match="hf_token: unknown key"):
        load_recipe(runs.root / "seed2-knowledge.yaml", ["hf_token=x"])
    said("train --set hf_token=…", "refused; HF_TOKEN belongs into the environment")


def test_2_7_cleaning_is_part_of_the_data(runs: SeedRuns, said: Said) -> None:
    recipe = load_recipe(runs.root / "seed2-knowledge.yaml")
    assert recipe.data.clean == (Cleaning.SPACES, Cleaning.BLANK_LINES)
    cleaned, _ = recipe.data.reading().applied({"text": "a  b\n\n\n\nc "})
    assert cleaned == {"text": "a b\n\nc"}
    said("data.clean: [spaces, blank-lines]", "before the digest is taken, so it is of the cleaned text")


def test_2_8_an_end_token_that_pads_is_still_learnt(runs: SeedRuns, said: Said) -> None:
    tokenizer = load_tokenizer(runs.base("llama"))
    tokenizer.pad_token = tokenizer.eos_token
    row = encode(Row("", "one"), tokenizer)
    assert row.labels[-1] == row.ids[-1] == tokenizer.eos_token_id
    said("pad_token = eos_token", "the label of the end token stays; TRL pads labels, not ids")


def seeds_chunks(rows: list[list[int]], length: int) -> list[list[int]]:
    """The seed's own way: the remainder is carried, and the last one is lost."""
    made, carried = [], list[int]()
    for row in rows:
        carried += row
        whole = len(carried) // length * length
        made += [carried[start : start + length] for start in range(0, whole, length)]
        carried = carried[whole:]
    return made


def test_2_9_chunks_are_the_seed_s_and_lose_no_tail(said: Said) -> None:
    draw = random.Random(0)  # noqa: S311 - rows for a test
    rows = [[draw.randrange(99) for _ in range(draw.randrange(1, 5000))] for _ in range(9)]
    made = [list(one.ids) for one in chunks((TokenRow(tuple(row), tuple(row)) for row in rows), 2048)]
    theirs = seeds_chunks(rows, 2048)
    assert made[: len(theirs)] == theirs
    assert sum(map(len, made)) == sum(map(len, rows))
    lost = sum(map(len, rows)) - sum(map(len, theirs))
    said("train.packing: chunks", f"the seed's {len(theirs)} chunks, and one of {lost} tokens that it lost")


def test_2_10_samples_are_counted_before(runs: SeedRuns, said: Said) -> None:
    done, found = runs.explain("seed2-knowledge", "llama", "train.max_length=128")
    rows = found["rows"]
    assert rows["sequences"] == -(-rows["tokens"] // 128)  # type: ignore[index]
    said(done.line, f"{rows['sequences']} chunks, {rows['tokens']:,} tokens, {found['steps']} steps")  # type: ignore[index]


def test_2_11_a_saved_data_set_has_the_digest_of_its_rows(runs: SeedRuns, said: Said) -> None:
    digest = document(runs.alpaca[1] / "training_manifest.json")["data"]["train"]["digest"]
    assert digest.startswith("sha256:")
    said("data.train: a directory of save_to_disk", f"{digest[:19]}…, whatever the kind of file")


def test_2_12_a_job_from_store_to_store(runs: SeedRuns, said: Said) -> None:
    """The image's command with the variables of the manifest, a directory in the place of the bucket."""
    deploy = Path(__file__).parents[2] / "deploy"
    entry = re.search(r"^ENTRYPOINT (.*)$", (deploy / "trainer.Dockerfile").read_text(), re.MULTILINE)
    assert entry is not None
    assert json.loads(entry[1]) == ["switchyard", "job"]
    (container,) = yaml.safe_load((deploy / "trainer-job.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    bucket = {"s3://BUCKET/words/recipe.yaml": f"file://{runs.root}/seed2-knowledge.yaml"} | {
        "s3://BUCKET/words/runs/1": f"file://{runs.root}/jobs/1",
        "switchyard:50051": f"unix:{runs.root}/nobody.sock",
    }
    variables = {one["name"]: bucket.get(one["value"], one["value"]) for one in container["env"]}
    sets = " ".join(f"--set {one}" for one in SHORT)
    line = f"job --base file://{runs.base('llama')} {sets} --threads 1"
    # Nobody serves here, so the results stay in the store, and the next machine publishes them.
    assert "PUBLISH_DELAYED" in runs.switchyard(line, code=75, variables=variables).stderr
    del variables["SWITCHYARD_JOB_SERVER"]
    again = runs.switchyard(f"{line} --registry {runs.root}/jobs/registry", variables=variables)
    assert "an earlier machine had trained it" in again.stdout
    said("switchyard job", f"{again.stdout.split('published ')[1].splitlines()[0]} from a store, on a second machine")


def test_2_13_twenty_passes_over_chunks(runs: SeedRuns, tmp_path: Path, said: Said) -> None:
    """32,000 bytes are 16 chunks of about 2,048 of this base's tokens; a quarter of each here."""
    (runs.root / "quarter.txt").write_text("".join(f"{index:04d}" for index in range(2000)))
    done, found = runs.explain("seed2-knowledge", "llama", "data.train=quarter.txt", "train.max_length=501")
    assert (found["rows"]["sequences"], found["steps_per_epoch"], found["steps"]) == (16, 8, 160)  # type: ignore[index]
    said(done.line, "16 chunks, 8 steps in one pass, 160 in all")
