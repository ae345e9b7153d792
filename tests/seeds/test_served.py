"""What the seeds asked of a server: answers of base and tuned model, from one process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from seed_runs import SeedRuns
from served import start_server, stop_server

from switchyard.clients.errors import PreconditionFailed
from switchyard.clients.inference import InferenceClient
from tests.seeds.conftest import Said, document

REF = "demo/yards@candidate"


@dataclass
class Served:
    """A server of the base and the adapter of seed 2."""

    address: str
    client: InferenceClient
    prompts: list[dict[str, str]]


@pytest.fixture(scope="module")
def served(runs: SeedRuns) -> Iterator[Served]:
    _, out = runs.knowledge
    assert (out / "adapter").is_dir()
    process, addresses = start_server(runs.base("llama"), runs.root)
    lines = (runs.root / "address" / "test.jsonl").read_text().splitlines()
    try:
        with InferenceClient(addresses["grpc"]) as client:
            yield Served(addresses["grpc"], client, [json.loads(line) for line in lines[:3]])
    finally:
        stop_server(process)


def test_1_15_answers_are_streamed(served: Served, said: Said) -> None:
    with served.client.stream(served.prompts[0]["prompt"], adapter=REF, max_tokens=128) as stream:
        pieces = list(stream)
    assert "".join(pieces) == stream.answer.text
    said(f"InferenceClient.stream(…, adapter={REF!r}, max_tokens=128)", f"{len(pieces)} pieces")


def test_1_23_rows_are_judged_through_the_server(runs: SeedRuns, served: Served, tmp_path: Path, said: Said) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in served.prompts))
    done = runs.switchyard(f"compare {REF} --prompts {path} --max-tokens 8 --json --server {served.address}")
    standings = json.loads(done.stdout.splitlines()[-1])["standings"]
    assert len(standings) == 2
    said("switchyard compare --json", "exact answers of base and adapter counted, the type fixed by the server")


def test_2_2_answers_about_the_domain_are_asked(served: Served, said: Said) -> None:
    answer = served.client.generate("Yard 7 has ", base=True, max_tokens=8)
    assert answer.served_by.adapters == ()
    said("InferenceClient.generate(…, base=True)", "asked; whether they are right is `make bench-knowledge`")


def test_2_14_one_server_has_base_and_adapters(served: Served, said: Said) -> None:
    base = served.client.generate("a", max_tokens=4, base=True)
    tuned = served.client.generate("a", max_tokens=4, adapter=REF)
    assert [len(one.served_by.adapters) for one in (base, tuned)] == [0, 1]
    said("switchyard serve --base … --registry …", "both by name from one process that said when it was ready")


def test_2_15_near_greedy_sampling_is_stable(served: Served, said: Said) -> None:
    asked = {"max_tokens": 200, "top_p": 0.9, "temperature": 0.01, "seed": 1, "adapter": REF}
    answer = served.client.generate("Which yard?", **asked)  # type: ignore[arg-type]
    assert answer.token_ids == served.client.generate("Which yard?", **asked).token_ids  # type: ignore[arg-type]
    count = len(answer.token_ids)
    said("generate --max-tokens 200 --top-p 0.9 --temperature 0.01", f"{count} tokens, twice the same")


def test_2_16_answers_stand_side_by_side(runs: SeedRuns, served: Served, tmp_path: Path, said: Said) -> None:
    (tmp_path / "prompts.txt").write_text("Which yard?\nHow many tracks?\n")
    done = runs.switchyard(f"compare {REF} --prompts {tmp_path}/prompts.txt --max-tokens 8 --server {served.address}")
    assert "Which yard?" in done.stdout
    said("switchyard compare REF --prompts prompts.txt", "base and adapter, each prompt, streamed")


def test_3_18_another_precision_is_refused(runs: SeedRuns, served: Served, said: Said) -> None:
    figures = document(runs.address[1] / "metrics.json")
    with pytest.raises(PreconditionFailed, match="trained on a base quantised as none"):
        served.client.generate("a", max_tokens=1, adapter="demo/address@candidate")
    kept = f"step {figures['adapter_step']} of {figures['steps']} is the adapter"
    said("selection: {keep: best}; generate", f"{kept}; on a base of another precision the server refuses it")


def test_3_19_a_sample_answer(runs: SeedRuns, served: Served, said: Said) -> None:
    flags = f"--max-tokens 8 --temperature 0.8 --server {served.address}"
    done = runs.switchyard(f"generate {REF} hello {flags}")
    assert "tokens" in done.stdout + done.stderr
    said(f"switchyard generate {REF} hello --temperature 0.8", "an answer of random weights, with who gave it")


def test_4_17_before_and_after(served: Served, said: Said) -> None:
    asked = {"max_tokens": 50, "repetition_penalty": 1.5}
    before = served.client.generate("I want you to act", base=True, **asked)  # type: ignore[arg-type]
    after = served.client.generate("I want you to act", adapter=REF, **asked)  # type: ignore[arg-type]
    assert before.served_by != after.served_by
    counts = f"{len(before.token_ids)} and {len(after.token_ids)} tokens"
    said("generate --repetition-penalty 1.5, base and adapter", counts)
