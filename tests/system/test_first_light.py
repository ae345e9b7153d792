"""Publish, serve, promote and refuse, over real gRPC against a real server process."""

from __future__ import annotations

import json
import shutil
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from served import Running, start_server, stop_server
from tiny_base import make_tiny_llama

from switchyard.clients import errors
from switchyard.clients.inference import InferenceClient
from switchyard.clients.registry import RegistryClient

PROMPT = "The quick brown fox"


def test_base_and_adapters_answer_each_with_their_own_weights(server: Running) -> None:
    answers = {
        "base": server.inference.generate(PROMPT, base=True, max_tokens=16),
        "alpha": server.inference.generate(PROMPT, adapter="alpha@prod", max_tokens=16),
        "beta": server.inference.generate(PROMPT, adapter="default/beta:1", max_tokens=16),
    }
    assert len({answer.token_ids for answer in answers.values()}) == 3
    assert answers["base"].served_by.adapters == ()
    for name in ("alpha", "beta"):
        (served,) = answers[name].served_by.adapters
        assert (served.adapter, served.version, served.weight) == (name, 1, 1.0)
        assert served.digest == server.registry.show(f"{name}:1").digest
        assert answers[name].served_by.quantization == "nf4+double/float32"
    assert answers["alpha"].served_by.adapters[0].alias == "prod"
    assert answers["alpha"].served_by.adapters[0].alias_generation == 1


def test_one_batch_of_base_and_adapters_equals_one_by_one(server: Running) -> None:
    asks = [{"base": True}, {"adapter": "alpha@prod"}, {"adapter": "beta@prod"}] * 4
    alone = [server.inference.generate(PROMPT, max_tokens=24, **ask).token_ids for ask in asks[:3]]  # type: ignore[arg-type]
    with ThreadPoolExecutor(len(asks)) as pool:
        together = list(
            pool.map(lambda ask: server.inference.generate(PROMPT, max_tokens=24, **ask).token_ids, asks)  # type: ignore[arg-type]
        )
    assert together == alone * 4


def test_streamed_equals_unary_and_says_who_served(server: Running) -> None:
    whole = server.inference.generate(PROMPT, adapter="alpha@prod", max_tokens=20)
    with server.inference.stream(PROMPT, adapter="alpha@prod", max_tokens=20) as stream:
        text = "".join(stream)
    assert text == whole.text == stream.answer.text
    assert stream.answer.served_by == whole.served_by
    assert stream.answer.token_ids == whole.token_ids


def test_composition_is_served_with_its_recipe(server: Running) -> None:
    recipe = [("alpha@prod", 0.5), ("beta@prod", -0.25)]
    first = server.inference.generate(PROMPT, composition=recipe, max_tokens=16)
    again = server.inference.generate(PROMPT, composition=recipe, max_tokens=16)
    assert first.token_ids == again.token_ids
    assert [(a.adapter, a.weight) for a in first.served_by.adapters] == [("alpha", 0.5), ("beta", -0.25)]
    assert first.served_by.recipe_digest.startswith("sha256:")
    cancelled = [("alpha@prod", 1.0), ("alpha@prod", -1.0)]
    with pytest.raises(errors.RequestInvalid) as caught:
        server.inference.generate(PROMPT, composition=cancelled, max_tokens=4)
    assert "COMPOSITION" in {fault.reason for fault in caught.value.faults} | {caught.value.reason}


def test_promote_while_a_stream_runs(server: Running) -> None:
    """The stream ends on the version it began with; the next request gets the new one."""
    server.registry.push(server.adapters["alpha"], "moving", alias="live")
    expected_old = server.inference.generate(PROMPT, adapter="moving:1", max_tokens=200, ignore_eos=True)
    stream = server.inference.stream(PROMPT, adapter="moving@live", max_tokens=200, ignore_eos=True)
    with stream:
        pieces = [next(iter(stream))]
        published = server.registry.push(server.adapters["beta"], "moving")
        server.registry.promote("moving", alias="live", version=published.version, expected_generation=1)
        after = server.inference.generate(PROMPT, adapter="moving@live", max_tokens=20, ignore_eos=True)
        pieces += list(stream)
    old, new = stream.answer.served_by.adapters[0], after.served_by.adapters[0]
    assert (old.version, old.alias_generation) == (1, 1)
    assert (new.version, new.alias_generation) == (2, 2)
    assert old.digest != new.digest
    assert stream.answer.token_ids == expected_old.token_ids, "a stream never changes its weights"
    assert "".join(pieces) == expected_old.text
    expected_new = server.inference.generate(PROMPT, adapter="beta@prod", max_tokens=20, ignore_eos=True)
    assert after.token_ids == expected_new.token_ids


def test_seeded_sampling_is_reproducible(server: Running) -> None:
    ask = {"adapter": "alpha@prod", "temperature": 1.0, "top_p": 0.9, "max_tokens": 30}
    first = server.inference.generate(PROMPT, seed=2**64 - 1, **ask)  # type: ignore[arg-type]
    again = server.inference.generate(PROMPT, seed=2**64 - 1, **ask)  # type: ignore[arg-type]
    other = server.inference.generate(PROMPT, seed=8, **ask)  # type: ignore[arg-type]
    assert first.token_ids == again.token_ids != other.token_ids
    unseeded = server.inference.generate(PROMPT, **ask)  # type: ignore[arg-type]
    repeated = server.inference.generate(PROMPT, seed=unseeded.seed, **ask)  # type: ignore[arg-type]
    assert unseeded.token_ids == repeated.token_ids, "the seed that was drawn gives the answer again"


BAD_REQUESTS = {
    "unknown adapter": ({"adapter": "nobody@prod"}, errors.NotFound, "ADAPTER_NOT_FOUND", "nobody"),
    "unknown alias": ({"adapter": "alpha@nowhere"}, errors.NotFound, "ALIAS_NOT_FOUND", "nowhere"),
    "unknown version": ({"adapter": "alpha:99"}, errors.NotFound, "VERSION_NOT_FOUND", "99"),
    "ref without selector": ({"adapter": "alpha"}, errors.RequestInvalid, "REF_SYNTAX", "alpha"),
    "prompt too long": ({"base": True, "prompt": "x" * 600}, errors.RequestInvalid, "CONTEXT_LENGTH", "512"),
    "negative temperature": ({"base": True, "temperature": -1.0}, errors.RequestInvalid, "SAMPLING_RANGE", "-1"),
    "temperature not a number": (
        {"base": True, "temperature": float("nan")},
        errors.RequestInvalid,
        "SAMPLING_RANGE",
        "nan",
    ),
    "no tokens wanted": ({"base": True, "max_tokens": 0}, errors.RequestInvalid, "LIMIT", "max_tokens"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_bad_request_is_refused_with_its_reason(server: Running, name: str) -> None:
    ask, kind, reason, told = BAD_REQUESTS[name]
    before = server.fingerprint()
    prompt = str(ask.pop("prompt", PROMPT)) if "prompt" in ask else PROMPT
    for call in (server.inference.generate, server.inference.stream):
        with pytest.raises(kind) as caught:
            call(prompt, **ask)  # type: ignore[operator]
        assert reason in {caught.value.reason, *(fault.reason for fault in caught.value.faults)}
        assert told in str(caught.value)
    assert server.fingerprint() == before


def test_all_faults_of_a_request_are_told_at_once(server: Running) -> None:
    with pytest.raises(errors.RequestInvalid) as caught:
        server.inference.generate("", base=True, temperature=-1, top_p=2.0, top_k=-3, max_tokens=-1, stop=["", "y"])
    fields = {fault.subject for fault in caught.value.faults}
    assert {"sampling.temperature", "sampling.top_p", "sampling.top_k", "stopping.max_tokens"} <= fields


def hostile(source: Path, target: Path, kind: str) -> Path:
    """A copy of an adapter with one thing wrong."""
    shutil.copytree(source, target)
    weights = target / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    if kind == "pickle":
        weights.rename(target / "adapter_model.bin")
        return target
    if kind == "extra tensor":
        tensors["lm_head.weight"] = np.zeros((288, 64), dtype=np.float32)
    elif kind == "not a number":
        tensors[first] = np.full_like(tensors[first], np.nan)
    elif kind == "missing tensor":
        del tensors[first]
    save_file(tensors, weights)
    return target


HOSTILE = {
    "pickle": "FILE_NOT_ALLOWED",
    "extra tensor": "TENSOR_NAME",
    "not a number": "NON_FINITE",
    "missing tensor": "TENSORS_MISSING",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_and_changes_nothing(server: Running, tmp_path: Path, kind: str) -> None:
    fingerprint = server.fingerprint()
    answer = server.inference.generate(PROMPT, adapter="alpha@prod", max_tokens=12).token_ids
    directory = hostile(server.adapters["alpha"], tmp_path / "adapter", kind)
    with pytest.raises(errors.ClientError) as caught:
        server.registry.push(directory, "hostile", alias="prod")
    assert HOSTILE[kind] in {caught.value.reason, *(fault.reason for fault in caught.value.faults)}
    with pytest.raises(errors.NotFound):
        server.inference.generate(PROMPT, adapter="hostile@prod")
    assert server.fingerprint() == fingerprint
    assert server.inference.generate(PROMPT, adapter="alpha@prod", max_tokens=12).token_ids == answer


def test_adapter_of_another_base_is_refused_and_never_falls_back(
    server: Running, tmp_path: Path, adapters: dict[str, Path]
) -> None:
    """Registered for its own base, it is unservable here; claimed for this base, it is not its shape's fault."""
    other = make_tiny_llama(tmp_path / "other-base", seed=1)
    process, addresses = start_server(other, tmp_path)
    with RegistryClient(addresses["grpc"]) as registry:
        registry.push(adapters["alpha"], "foreign", alias="prod")
    assert stop_server(process) == 0
    process, addresses = start_server(server.base, tmp_path)
    with InferenceClient(addresses["grpc"]) as inference:
        with pytest.raises(errors.PreconditionFailed) as caught:
            inference.generate(PROMPT, adapter="foreign@prod")
        assert caught.value.reason == "BASE_MISMATCH"
        assert inference.generate(PROMPT, base=True, max_tokens=2).served_by.adapters == ()
    assert stop_server(process) == 0


def test_operators_see_tiers_and_can_load_and_unload(server: Running) -> None:
    digest = server.registry.push(server.adapters["gamma"], "gamma", alias="prod").digest
    assert server.admin.load_adapter("gamma@prod").digest == digest
    server.inference.generate(PROMPT, adapter="gamma@prod", max_tokens=2)
    states = {status.digest: status for status in server.admin.adapters()}
    assert states[digest].device_bytes > 0
    server.admin.unload_adapter("gamma@prod")
    assert digest not in {status.digest for status in server.admin.adapters()}
    load = server.admin.load()
    assert (load.running_sequences, load.waiting_requests, load.kv_rows_used) == (0, 0, 0)


def test_metrics_and_health_are_told_over_http(server: Running) -> None:
    server.inference.generate(PROMPT, adapter="alpha@prod", max_tokens=4)

    def get(path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://{server.addresses['http']}{path}") as reply:
            return reply.status, reply.read().decode()

    _, text = get("/metrics")
    for name in ("time_to_first_token", "inter_token_latency", "adapter_load"):
        assert f"switchyard_{name}_seconds_count" in text
    assert 'switchyard_adapter_bytes{tier="device"}' in text
    assert get("/health")[0] == 200


def test_command_line_speaks_json(server: Running) -> None:
    import subprocess
    import sys

    command = [str(Path(sys.executable).parent / "switchyard"), "generate", "alpha@prod", PROMPT, "--json"]
    command += ["--max-tokens", "4", "--server", server.addresses["grpc"]]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert answer["served_by"]["adapters"][0]["adapter"] == "alpha"
