from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_services import BASE_DIGEST, FakeServer, Refusal, two_answers
from typer.testing import CliRunner, Result

from switchyard.clients.cli import app
from switchyard.proto.inference.v1 import inference_pb2 as pb


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 8}')
    (directory / "adapter_model.safetensors").write_bytes(b"weights" * 100)
    return directory


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWITCHYARD_SERVER", raising=False)
    monkeypatch.delenv("SWITCHYARD_REGISTRY", raising=False)
    monkeypatch.setenv("COLUMNS", "160")


def run(*arguments: str, at: FakeServer | None = None, stdin: str | None = None) -> Result:
    where = ["--server", at.address] if at else []
    return CliRunner().invoke(app, [*arguments, *where], input=stdin)


def read_json(*arguments: str, at: FakeServer) -> Any:
    result = run(*arguments, "--json", at=at)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_push_ls_show_promote_history_pull(server: FakeServer, adapter: Path, tmp_path: Path) -> None:
    pushed = run("push", str(adapter), "team/sums", "--alias", "prod", "--expect-generation", "0", at=server)
    assert pushed.exit_code == 0, pushed.output
    assert "team/sums:1" in pushed.stdout
    (adapter / "adapter_config.json").write_text('{"r": 16}')
    assert run("push", str(adapter), "team/sums", "--note", "second", at=server).exit_code == 0
    assert re.search(r"team/sums\s+2\s+prod→1 \(#1\)", run("ls", at=server).stdout)
    versions = run("ls", "team/sums", at=server).stdout
    assert re.search(r"team/sums:2 .* second", versions)
    moved = run("promote", "team/sums:2", "--alias", "prod", "--reason", "better", at=server)
    assert "team/sums@prod: version 1 → version 2" in moved.stdout
    assert re.search(r"2\s+set\s+1\s+2\s.*better", run("history", "team/sums@prod", at=server).stdout)
    shown = run("show", "team/sums@prod", at=server).stdout
    assert "tiny  " + BASE_DIGEST in shown
    pulled = run("pull", "team/sums@prod", str(tmp_path / "out"), at=server)
    assert "team/sums:2" in pulled.stdout
    assert (tmp_path / "out" / "adapter_config.json").read_text() == '{"r": 16}'


def test_a_push_that_only_validates(server: FakeServer, adapter: Path) -> None:
    checked = run("push", str(adapter), "team/sums", "--validate-only", at=server)
    assert (checked.exit_code, checked.stdout) == (
        0,
        "the card is empty\nwould be accepted; nothing was published\n",
    )
    assert read_json("push", str(adapter), "team/sums", "--validate-only", at=server) == ["the card is empty"]
    assert read_json("ls", at=server) == []
    refused = run("push", str(adapter), "team/sums", "--validate-only", "--alias", "prod", "--tag", "a=b", at=server)
    assert refused.exit_code == 2
    assert "found --alias, --tag" in " ".join(refused.stderr.split())


def test_every_reading_command_speaks_json(server: FakeServer, adapter: Path) -> None:
    pushed = read_json("push", str(adapter), "sums", "--alias", "prod", at=server)
    assert (pushed["version"], pushed["aliases"]) == (1, ["prod"])
    assert read_json("ls", at=server)[0]["aliases"][0]["generation"] == 1
    assert read_json("ls", "sums", at=server)[0]["digest"] == pushed["digest"]
    assert read_json("show", "sums:1", at=server) == pushed
    assert read_json("promote", "sums:1", "--alias", "canary", at=server)["previous_version"] == 0
    assert read_json("history", "sums@canary", at=server)[0]["to_version"] == 1
    assert read_json("bases", at=server)[0]["digest"] == BASE_DIGEST
    status = read_json("status", at=server)
    assert (status["info"]["max_rank"], status["adapters"][0]["state"]) == (16, "resident")


def test_tables_of_the_reading_commands(server: FakeServer) -> None:
    assert "LlamaForCausalLM" in run("bases", at=server).stdout
    status = run("status", at=server).stdout
    assert "2 of 16 running" in status
    assert re.search(r"aaaaaaaaaaaa\s+resident\s+2", status)


def test_a_plan_is_a_table_and_fails_when_not_all_would_be_in_slots(server: FakeServer) -> None:
    one = run("plan", "a:1", at=server)
    assert one.exit_code == 0
    assert re.search(r"a:1\s+a{12}\s+slot\s+2.0 KiB\s+yes", one.stdout)
    assert "needed: 1 of 4 slots, 4.0 KiB of 64.0 MiB host memory" in one.stdout
    three = run("plan", "a:1", "b:1", "c:1", at=server)
    assert three.exit_code == 1
    assert "c:1: RANK_TOO_LARGE: it takes rank 64" in three.stdout
    assert "would leave memory: " + "b" * 12 in three.stdout
    told = json.loads(run("plan", "a:1", "--json", at=server).stdout)
    assert (told["plan"]["adapters"][0]["place"], told["info"]["adapter_slots"]) == ("slot", 4)


def test_generate_streams_text_and_says_who_answered(server: FakeServer) -> None:
    result = run("generate", "team/sums@prod", "one two", at=server)
    assert result.exit_code == 0
    assert result.stdout == "two one\n"
    assert re.search(r"team/sums:1 [0-9a-f]{12} · @prod #1 · .* 2 tokens · stop · TTFT 10 ms", result.stderr)
    assert server.inference.calls == ["Generate"]


def test_generate_without_streaming_and_as_json(server: FakeServer) -> None:
    assert run("generate", "--base", "one two", "--no-stream", at=server).stdout == "two one\n"
    answer = read_json("generate", "--base", "one two", at=server)
    assert (answer["text"], answer["finish_reason"], answer["served_by"]["adapters"]) == ("two one", "stop", [])
    assert server.inference.calls == ["GenerateOnce"] * 2


def test_generate_passes_every_option(server: FakeServer) -> None:
    options = ["--temperature", "0", "--top-p", "0.5", "--top-k", "3", "--seed", "9"]
    options += ["--max-tokens", "4", "--stop", "a", "--stop", "b"]
    result = run("generate", "--compose", "a@x=0.7", "--compose", "b:2=-0.3", "hi", *options, at=server)
    assert result.exit_code == 0, result.output
    sent = server.inference.requests[-1]
    assert [(one.ref, one.weight) for one in sent.composition.adapters] == [("a@x", 0.7), ("b:2", -0.3)]
    assert sent.sampling.HasField("temperature")
    assert (sent.sampling.top_p, sent.sampling.top_k, sent.sampling.seed) == (0.5, 3, 9)
    assert (sent.stopping.max_tokens, list(sent.stopping.stop)) == (4, ["a", "b"])
    assert "0.7 x default/a:1 + -0.3 x" in result.stderr


def test_generate_passes_what_chooses_and_shapes_the_answer(server: FakeServer, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "integer"}')
    options = ["--min-p", "0.1", "--typical-p", "0.9", "--repetition-penalty", "1.1", "--presence-penalty", "0.5"]
    options += ["--frequency-penalty", "-0.5", "--logit-bias", "5=-1.5", "--logit-bias", "7=2", "--best-of", "4"]
    options += ["--allow-token", "5", "--allow-token", "7", "--ban-token", "9", "-n", "2", "--logprobs", "3"]
    options += [
        "--prompt-logprobs",
        "0",
        "--min-tokens",
        "2",
        "--stop-token",
        "11",
        "--ignore-eos",
        "--priority",
        "-3",
    ]
    result = run("generate", "--base", "hi", "--json-schema", str(schema), *options, at=server)
    assert result.exit_code == 0, result.output
    sent = server.inference.requests[-1]
    sampling = sent.sampling
    found = (sampling.n, sampling.best_of, sampling.logprobs, sampling.prompt_logprobs, sent.priority)
    assert found == (2, 4, 3, 0, -3)
    assert sampling.HasField("prompt_logprobs")
    numbers = (sampling.min_p, sampling.typical_p, sampling.repetition_penalty)
    assert numbers == pytest.approx((0.1, 0.9, 1.1))
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -0.5)
    assert dict(sampling.logit_bias) == {5: -1.5, 7: 2.0}
    assert (list(sampling.allowed_token_ids), list(sampling.banned_token_ids)) == ([5, 7], [9])
    assert (sent.stopping.min_tokens, list(sent.stopping.stop_token_ids), sent.stopping.ignore_eos) == (2, [11], True)
    assert sent.structure.json_schema == '{"type": "integer"}'


def test_generate_passes_how_adapters_become_one(server: FakeServer) -> None:
    options = ["--method", "dare_ties", "--density", "0.5", "--method-seed", "3", "--majority-sign", "frequency"]
    options += ["--svd-rank", "4", "--session-key", "ann"]
    assert run("generate", "--compose", "a@x=1", "hi", *options, at=server).exit_code == 0
    sent = server.inference.requests[-1]
    recipe = sent.composition
    assert (recipe.density, recipe.seed, recipe.svd_rank, sent.session_key) == (0.5, 3, 4, "ann")
    assert (recipe.method, recipe.majority_sign) == (pb.COMPOSITION_METHOD_DARE_TIES, pb.MAJORITY_SIGN_FREQUENCY)


@pytest.mark.parametrize(
    ("options", "kind", "texts"),
    [
        (["--regex", "[0-9]+"], "regex", "[0-9]+"),
        (["--choice", "yes", "--choice", "no"], "choices", ["yes", "no"]),
    ],
)
def test_generate_passes_a_structure(server: FakeServer, options: list[str], kind: str, texts: object) -> None:
    assert run("generate", "--base", "hi", *options, at=server).exit_code == 0
    structure = server.inference.requests[-1].structure
    assert structure.WhichOneof("kind") == kind
    assert (list(structure.choices.texts) if kind == "choices" else getattr(structure, kind)) == texts


def test_generate_shows_logprobs_as_a_table_and_several_answers_by_number(server: FakeServer) -> None:
    server.inference.script = two_answers
    result = run("generate", "--base", "hi", "-n", "2", "--logprobs", "1", at=server)
    assert result.stdout == "[0] ab\n[1] c\n"
    lines = [" ".join(line.split()) for line in result.stderr.splitlines()]
    assert lines[0] == "prompt id logprob most probable"
    assert lines[1] == '"i" 9 -0.500'
    assert lines[2:5] == [
        "answer 0 id logprob most probable",
        '"a" 5 -1.250 "x" -0.250',
        '"b" 6 -1.250 "x" -0.250',
    ]
    streamed = run("generate", "--base", "hi", "--logprobs", "1", at=server)
    assert streamed.stdout == "ab\n", "a stream shows the first answer"


def test_generate_reads_a_prompt_from_standard_input(server: FakeServer) -> None:
    assert run("generate", "--base", "-", at=server, stdin="from a pipe").stdout == "pipe a from\n"


def test_an_answer_cannot_drive_the_terminal(server: FakeServer) -> None:
    result = run("generate", "--base", "\x1b[2J\x07red", at=server)
    assert "\x1b" not in result.stdout
    assert result.stdout == "\ufffd[2J\ufffdred\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["generate", "ref-alone"], "a ref and a prompt"),
        (["generate", "--base", "ref", "prompt"], "only a prompt"),
        (["generate", "--compose", "a", "prompt"], "ns/name@prod=0.7"),
        (["generate", "--compose", "a=b", "prompt"], "ns/name@prod=0.7"),
        (["generate", "--base", "--logit-bias", "x=1", "prompt"], "like 42=-1.5"),
        (["generate", "--base", "--grammar", "/nowhere/at/all", "prompt"], "cannot be read"),
        (["promote", "team/sums", "--alias", "x"], "ns/name:7"),
        (["promote", "team/sums@prod", "--alias", "x"], "ns/name:7"),
        (["history", "team/sums"], "ns/name@prod"),
        (["push", "dir"], "ADAPTER"),
        (["no-such-command"], "no-such-command"),
        (["ls", "--server", "127.0.0.1:1", "--registry", "dir"], "expected one of"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_expected(arguments: list[str], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert expected in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def test_a_refusal_is_1_with_every_fault_and_no_traceback(server: FakeServer, adapter: Path) -> None:
    faults = (("adapter_model.bin", "FILE_NOT_ALLOWED", "a pickle"), ("weights", "NON_FINITE", "3 NaN"))
    server.registry.refuse_next(
        "CommitPublish",
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "VERSION_REFUSED", "refused, 2 fault(s):\n  listed", faults),
    )
    result = run("push", str(adapter), "sums", at=server)
    assert result.exit_code == 1
    assert "error VERSION_REFUSED\nrefused, 2 fault(s):\n" in result.stderr
    assert "  adapter_model.bin [FILE_NOT_ALLOWED]: a pickle\n" in result.stderr
    assert "  weights [NON_FINITE]: 3 NaN\n" in result.stderr
    assert "Traceback" not in result.output
    assert "listed" not in result.output


def test_when_to_try_again_is_said(server: FakeServer) -> None:
    busy = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "256 wait", retry_after_s=500.0)
    server.inference.refuse_next("Generate", busy)
    result = run("generate", "--base", "hi", at=server)
    assert result.exit_code == 1
    assert "try again in 500.0 s" in result.stderr


def test_nobody_there_is_3() -> None:
    result = run("ls", "--server", "127.0.0.1:1")
    assert result.exit_code == 3
    assert "UNREACHABLE" in result.stderr


def test_a_bad_address_is_1() -> None:
    result = run("ls", "--server", "nonsense")
    assert result.exit_code == 1
    assert "ADDRESS_INVALID" in result.stderr


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from switchyard.clients.commands import serving

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(serving, "AdminClient", broken)
    assert isinstance(run("status").exception, ZeroDivisionError)


def test_the_environment_says_where_and_the_command_line_wins(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_SERVER", server.address)
    assert run("bases").exit_code == 0
    monkeypatch.setenv("SWITCHYARD_REGISTRY", "/nowhere/at/all")
    assert run("bases").exit_code == 2
    assert run("bases", at=server).exit_code == 0


def test_listing_and_help_load_no_other_room() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from switchyard.clients.cli import app;"
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0, r.output;"
        "assert 'registry-service' in r.output and 'train' in r.output;"
        "heavy = {'torch', 'switchyard.server', 'switchyard.trainer', 'switchyard.registry', 'transformers'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_console_script_works_as_a_process(server: FakeServer) -> None:
    script = Path(sys.executable).with_name("switchyard")
    done = subprocess.run(
        [script, "generate", "--base", "one two", "--server", server.address],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "two one\n")
    assert done.stderr.startswith("base bbbbbbbbbbbb · nf4+double/float32 · 2 tokens")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", version.stdout)
