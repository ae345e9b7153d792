from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_services import FakeServer, running_fakes
from served import start_server, stop_server
from typer.testing import CliRunner

from switchyard.clients.admin import ServerInfo
from switchyard.clients.inference import InferenceClient
from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.trainer import server_check
from switchyard.trainer.base_model import load_tokenizer
from switchyard.trainer.row_formats import Message, Row
from switchyard.trainer.server_check import Needs, ServerReport, compare_tokens, judge, sample
from tests.support.tiny_base import BYTE_OFFSET
from tests.trainer.conftest import MakeRecipe
from tests.trainer.test_commands import app

CHATML = "{% for m in messages %}</s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"

INFO = ServerInfo(
    version="1",
    base_name="tiny",
    base_digest="sha256:b",
    quantization="nf4+double/float32",
    max_sequences=4,
    max_context_tokens=256,
    max_rank=16,
    adapter_slots=2,
    host_cache_bytes=1000,
    base_fingerprint="",
)
FITS = Needs("sha256:b", "nf4+double/bfloat16", 16, 256, 1000)


def test_what_fits_is_not_complained_of() -> None:
    assert judge(FITS, INFO) == ([], [])
    assert judge(dataclasses.replace(FITS, file_bytes=None), INFO) == ([], [])


@pytest.mark.parametrize(
    ("change", "subject", "words"),
    [
        ({"base_digest": "sha256:other"}, "base", "sha256:other"),
        ({"quantization": "nf4/float32"}, "quantization", "nf4+double"),
        ({"rank": 17}, "lora.r", "up to 16"),
        ({"file_bytes": 1001}, "lora", "1,001"),
    ],
)
def test_each_limit_is_compared(change: dict[str, object], subject: str, words: str) -> None:
    (fault,), warnings = judge(dataclasses.replace(FITS, **change), INFO)  # type: ignore[arg-type]
    assert (fault.subject, warnings) == (subject, [])
    assert words in fault.message


def test_all_faults_are_told_together_and_a_short_context_is_a_warning() -> None:
    faults, warnings = judge(Needs("sha256:other", "none/float32", 99, 257, 10**9), INFO)
    assert [fault.subject for fault in faults] == ["base", "quantization", "lora.r", "lora"]
    assert len(warnings) == 1


def test_samples_are_spread_over_all_rows() -> None:
    rows = [Row(str(number), "x") for number in range(1000)]
    places = [place for place, _ in sample(rows)]
    assert (len(places), places[0], places[-1]) == (16, 0, 999)
    assert [place for place, _ in sample(rows[:3])] == [0, 1, 2]
    assert [place for place, _ in sample(rows[:1])] == [0]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with running_fakes() as running:
        yield running


def reading_bytes(request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
    """The tiny base's tokenizer, which reads an `!` as something else and forgets what is behind a `#`."""
    text = request.prompt.partition("#")[0].replace("!", "?")
    ids = [1, *(BYTE_OFFSET + byte for byte in text.encode())]
    logprobs = [pb.TokenLogprob(token_id=one, logprob=-1.0) for one in ids[1:]]
    finished = pb.Finished(reason=pb.FINISH_REASON_LENGTH, usage=pb.Usage(prompt_tokens=len(ids)))
    return [
        pb.GenerateResponse(started=pb.Started()),
        pb.GenerateResponse(chunk=pb.Chunk(prompt_logprobs=logprobs)),
        pb.GenerateResponse(finished=finished),
    ]


def test_tokens_are_compared_one_by_one(fake: FakeServer, tiny_base: Path) -> None:
    fake.inference.script = reading_bytes
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = CHATML
    turns = (Message("user", "hi"),)
    rows = [Row("same", "a"), Row("oh!", "b"), Row("ab#c", "c"), Row("", "plain text"), Row(turns, turns)]
    with InferenceClient(fake.address) as client:
        compared, differences, _ = compare_tokens(client, tokenizer, list(enumerate(rows)))
    assert compared == 5
    assert [(one.row, one.place, one.trained, one.served) for one in differences] == [
        (1, 3, "!", "?"),
        (2, 3, "#", ""),
        (4, 1, "h", "<"),
    ]
    (sentence,) = ServerReport("here", (), (), compared, differences).sentences()
    assert "reads 3 of 5 prompts" in sentence
    assert "row 1, token 3: trained on '!'" in sentence


def test_a_server_that_is_down_is_a_warning_and_training_goes_on(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    make_recipe(train={"max_steps": 1})
    words = ["train", "recipe.yaml", "--threads", "1", "--publish", "a/b", "--server", f"unix:{tmp_path / 'nobody'}"]
    done = CliRunner().invoke(app, words)
    assert "does not answer now" in done.stderr
    assert "To publish it later" in done.stderr


@pytest.mark.slow
def test_a_real_server_agrees_with_its_own_base_and_refuses_a_rank_that_is_too_large(
    make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    process, addresses = start_server(tiny_base, tmp_path, "--max-rank", "8")
    try:
        make_recipe()
        dry = ["train", "recipe.yaml", "--dry-run", "--threads", "1", "--server", addresses["grpc"]]
        good = CliRunner().invoke(app, dry)
        assert good.exit_code == 0, good.stderr
        assert "16 of 16 are the same tokens" in good.stdout
        recipe = make_recipe(lora={"r": 9}, quantization={"double": False})
        bad = CliRunner().invoke(app, [*dry, "--json"])
        error = json.loads(bad.stdout)["error"]
        assert (bad.exit_code, error["reason"]) == (1, "SERVER_UNFIT")
        assert [fault["subject"] for fault in error["faults"]] == ["quantization", "lora.r"]
        report = server_check.check_server(recipe, addresses["grpc"])
        assert (report.compared, report.differences) == (16, ())
    finally:
        assert stop_server(process) == 0
