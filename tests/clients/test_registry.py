from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from fake_services import BASE_DIGEST, FakeServer, Refusal

from switchyard.clients import RegistryClient, RetryPolicy, direct, errors, source
from switchyard.clients.upload import TransferProgress
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.validation import adapter_files


@pytest.fixture
def client(server: FakeServer) -> Iterator[RegistryClient]:
    with RegistryClient(server.address, policy=RetryPolicy(first_delay_s=0.001)) as made:
        yield made


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"r": 8}')
    (directory / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 14)
    (directory / "README.md").write_bytes(b"")
    return directory


def test_push_then_pull_gives_the_same_bytes(client: RegistryClient, adapter: Path, tmp_path: Path) -> None:
    pushed = client.push(adapter, "team/sums", note="first", alias="prod", expected_generation=0)
    assert (pushed.ref, pushed.note, pushed.aliases) == ("team/sums:1", "first", ("prod",))
    assert pushed.base_model.digest == BASE_DIGEST
    destination = tmp_path / "deep" / "pulled"
    pulled = client.pull("team/sums@prod", destination)
    assert pulled == pushed
    found = {path.name: path.read_bytes() for path in destination.iterdir()}
    assert found == {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert [path.name for path in destination.parent.iterdir()] == ["pulled"]


def test_progress_reaches_every_file_and_only_grows(client: RegistryClient, adapter: Path, tmp_path: Path) -> None:
    steps: list[TransferProgress] = []
    client.push(adapter, "sums", progress=steps.append)
    last = {step.path: step for step in steps}
    assert {path: step.done_bytes for path, step in last.items()} == {
        path.name: path.stat().st_size for path in adapter.iterdir()
    }
    big = [step.done_bytes for step in steps if step.path == "adapter_model.safetensors"]
    assert big == [1000, 2000, 3000, 3584]
    steps.clear()
    client.pull("sums:1", tmp_path / "out", progress=steps.append)
    assert [s.done_bytes for s in steps if s.path == "adapter_model.safetensors"] == [1000, 2000, 3000, 3584]


def test_a_broken_upload_goes_on_where_it_stopped(server: FakeServer, client: RegistryClient, adapter: Path) -> None:
    server.registry.break_upload_after = 2000
    steps: list[TransferProgress] = []
    version = client.push(adapter, "sums", progress=steps.append)
    assert version.version == 1
    # The fake asserts that each chunk continues where the blob stands.
    assert server.registry.calls.count("UploadBlob") == 4


def test_pushing_the_same_twice_makes_one_version(server: FakeServer, client: RegistryClient, adapter: Path) -> None:
    first = client.push(adapter, "sums")
    assert client.push(adapter, "sums") == first
    assert server.registry.calls.count("CommitPublish") == 1
    assert client.push(adapter, "other").version == 1
    (adapter / "adapter_config.json").write_text('{"r": 16}')
    assert client.push(adapter, "sums").version == 2


def test_a_lost_commit_reply_does_not_make_a_second_version(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    server.registry.lose_commit_reply = True
    version = client.push(adapter, "sums", alias="prod", expected_generation=0)
    assert (version.version, version.aliases) == (1, ("prod",))
    assert [len(known) for known in server.registry.versions.values()] == [1]
    assert [event.generation for event in client.history("sums", "prod")] == [1]


def test_pushing_again_with_an_alias_moves_it(client: RegistryClient, adapter: Path) -> None:
    client.push(adapter, "sums")
    again = client.push(adapter, "sums", alias="prod")
    assert again.aliases == ("prod",)
    client.push(adapter, "sums", alias="prod")
    assert len(client.history("sums", "prod")) == 1


def test_a_check_sends_everything_and_publishes_nothing(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    assert client.check(adapter, "sums", signature=b"bundle") == ("the card is empty",)
    assert [request.signature for request in server.registry.checked] == [b"bundle"]
    assert client.adapters() == []
    sent = server.registry.calls.count("UploadBlob")
    version = client.push(adapter, "sums", note="now")
    assert (version.version, version.note) == (1, "now")
    assert server.registry.calls.count("UploadBlob") == sent
    assert client.check(adapter, "sums") == ()


def test_headers_of_a_presigned_address_are_sent_there(
    server: FakeServer, client: RegistryClient, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.registry.upload_headers = {"x-ms-blob-type": "BlockBlob"}
    sent: dict[str, dict[str, str]] = {}

    def send(url: str, headers: Mapping[str, str], *_: object) -> None:
        sent[url] = dict(headers)
        raise direct.DirectFailed("there is no such store")

    monkeypatch.setattr(direct, "send", send)
    version = client.push(adapter, "sums", directly=True)
    assert sent == {f"https://store/{file.digest}": {"x-ms-blob-type": "BlockBlob"} for file in version.files}


def test_known_bytes_are_not_sent_again(server: FakeServer, client: RegistryClient, adapter: Path) -> None:
    client.push(adapter, "sums")
    server.registry.calls.clear()
    client.push(adapter, "copy")
    assert "UploadBlob" not in server.registry.calls


def test_the_training_manifest_beside_the_adapter_becomes_lineage(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    manifest = {
        "base_digest": BASE_DIGEST,
        "lineage": {
            "dataset_digest": "sha256:d",
            "recipe_digest": "sha256:r",
            "code_commit": "abc",
            "training_quantization": {
                "method": "nf4",
                "double_quantization": True,
                "compute_dtype": "float32",
            },
            "parents": ["sha256:p"],
            "metrics": [{"name": "exact", "value": 0.99, "dataset_digest": "sha256:t"}],
            "environment": {"peft": "0.21.2"},
        },
    }
    (adapter.parent / "training_manifest.json").write_text(json.dumps(manifest))
    server.registry.bases.append(pb.BaseModel(digest="sha256:other", name="other"))
    version = client.push(adapter.parent, "sums")
    lineage = version.lineage
    assert {file.path for file in version.files} == {path.name for path in adapter.iterdir()}
    assert (lineage.dataset_digest, lineage.recipe_digest, lineage.code_commit) == ("sha256:d", "sha256:r", "abc")
    assert lineage.training_quantization is not None
    assert lineage.training_quantization.double_quantization
    assert lineage.parents == ("sha256:p",)
    assert [(m.name, m.value, m.dataset_digest) for m in lineage.metrics] == [("exact", 0.99, "sha256:t")]
    assert lineage.environment == {"peft": "0.21.2"}


@pytest.mark.parametrize("text", ["{", "[]", '{"metrics": [{"name": "x", "value": "much"}]}', '{"parents": 3}'])
def test_a_manifest_that_cannot_be_read_stops_the_push(
    server: FakeServer, client: RegistryClient, adapter: Path, text: str
) -> None:
    (adapter / "training_manifest.json").write_text(text)
    with pytest.raises(errors.SourceInvalid, match="training_manifest"):
        client.push(adapter, "sums")
    assert server.registry.calls == []


def test_the_base_must_be_told_when_several_are_registered(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    server.registry.bases.append(pb.BaseModel(digest="sha256:other", name="other"))
    with pytest.raises(errors.BaseAmbiguous, match="sha256:other"):
        client.push(adapter, "sums")
    assert client.push(adapter, "sums", base_digest=BASE_DIGEST).base_model.name == "tiny"


def test_what_no_version_holds_is_left_out_as_the_registry_does(client: RegistryClient, adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text("{}")
    (adapter / "checkpoint-100").mkdir()
    (adapter / "checkpoint-100" / "optimizer.pt").write_bytes(b"pickle")
    (adapter / "extra.bin").write_bytes(b"pickle")
    version = client.push(adapter, "sums")
    # What might be harmful is sent, so that the registry refuses it by name.
    assert {file.path for file in version.files} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "extra.bin",
    }
    assert source.LEFT_OUT == adapter_files._LEFT_OUT


def test_a_registry_without_a_base_says_how_to_get_one(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    server.registry.bases.clear()
    with pytest.raises(errors.BaseAmbiguous, match="switchyard serve --base"):
        client.push(adapter, "sums")


def test_links_and_pipes_are_refused_all_at_once_and_never_opened(client: RegistryClient, adapter: Path) -> None:
    (adapter / "link.json").symlink_to("/etc/hostname")
    os.mkfifo(adapter / "pipe")
    with pytest.raises(errors.SourceInvalid) as caught:
        client.push(adapter, "sums")
    assert {fault.subject for fault in caught.value.faults} == {"link.json", "pipe"}


def test_a_missing_or_empty_directory_is_said(client: RegistryClient, tmp_path: Path) -> None:
    with pytest.raises(errors.SourceInvalid, match="no directory"):
        client.push(tmp_path / "nothing", "sums")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.SourceInvalid, match="none"):
        client.push(tmp_path / "empty", "sums")


def test_the_registrys_refusal_arrives_with_every_fault(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    faults = (("adapter_model.bin", "FILE_NOT_ALLOWED", "a pickle"), ("x", "TENSOR_NAME", "lm_head.weight"))
    server.registry.refuse_next(
        "CommitPublish", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "VERSION_REFUSED", faults=faults)
    )
    with pytest.raises(errors.RequestInvalid) as caught:
        client.push(adapter, "sums")
    assert [fault.reason for fault in caught.value.faults] == ["FILE_NOT_ALLOWED", "TENSOR_NAME"]


def test_tampered_bytes_are_thrown_away(
    server: FakeServer, client: RegistryClient, adapter: Path, tmp_path: Path
) -> None:
    client.push(adapter, "sums")
    server.registry.tamper = True
    with pytest.raises(errors.BytesMismatch, match="Nothing was kept"):
        client.pull("sums:1", tmp_path / "out" / "here")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_download_goes_on_where_it_stopped(
    server: FakeServer, client: RegistryClient, adapter: Path, tmp_path: Path
) -> None:
    client.push(adapter, "sums")
    server.registry.break_download_after = 2000
    client.pull("sums:1", tmp_path / "out")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (adapter / weights).read_bytes()
    assert server.registry.calls.count("DownloadBlob") == 4


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_names_that_leave_the_directory_are_refused(
    server: FakeServer, client: RegistryClient, adapter: Path, tmp_path: Path, path: str
) -> None:
    client.push(adapter, "sums")
    server.registry.versions["default/sums"][0].files[0].path = path
    with pytest.raises(errors.BytesMismatch) as caught:
        client.pull("sums:1", tmp_path / "out")
    assert caught.value.reason == "FILE_NAME"
    assert "DownloadBlob" not in server.registry.calls
    assert not (tmp_path / "out").exists()


def test_pull_never_writes_over_anything(client: RegistryClient, adapter: Path, tmp_path: Path) -> None:
    client.push(adapter, "sums")
    (tmp_path / "out").mkdir()
    with pytest.raises(errors.DestinationExists, match="not there yet"):
        client.pull("sums:1", tmp_path / "out")


def test_promote_compares_generations_and_history_tells(client: RegistryClient, adapter: Path) -> None:
    client.push(adapter, "sums", alias="prod")
    (adapter / "adapter_config.json").write_text('{"r": 16}')
    client.push(adapter, "sums")
    move = client.promote("sums", "prod", 2, expected_generation=1, actor="ana", reason="better")
    assert (move.previous_version, move.alias.version, move.alias.generation) == (1, 2, 2)
    with pytest.raises(errors.Conflict) as caught:
        client.promote("sums", "prod", 1, expected_generation=1)
    assert caught.value.reason == "GENERATION_MISMATCH"
    assert caught.value.facts == {"current_generation": "2"}
    assert not caught.value.retryable
    events = client.history("sums", "prod")
    assert [(e.generation, e.from_version, e.to_version, e.actor, e.reason) for e in events] == [
        (2, 1, 2, "ana", "better"),
        (1, 0, 1, "tester", "publish"),
    ]


def test_promote_is_sent_once_even_when_the_reply_is_lost(
    server: FakeServer, client: RegistryClient, adapter: Path
) -> None:
    client.push(adapter, "sums")
    server.registry.refuse_next("SetAlias", Refusal(grpc.StatusCode.UNAVAILABLE))
    with pytest.raises(errors.Unreachable):
        client.promote("sums", "prod", 1)
    assert server.registry.calls.count("SetAlias") == 1


def test_listings_join_their_pages(client: RegistryClient, adapter: Path) -> None:
    for rank in range(5):
        (adapter / "adapter_config.json").write_text(f'{{"r": {rank}}}')
        client.push(adapter, "sums", alias="prod")
        client.push(adapter, f"team/a{rank}")
    assert [version.version for version in client.versions("sums")] == [5, 4, 3, 2, 1]
    assert [one.adapter for one in client.adapters()] == ["sums", "a0", "a1", "a2", "a3", "a4"]
    assert [one.adapter for one in client.adapters("team")] == ["a0", "a1", "a2", "a3", "a4"]
    (alias,) = client.adapters("default")[0].aliases
    assert (alias.name, alias.version, alias.generation) == ("prod", 5, 5)


def test_show_and_resolve(client: RegistryClient, adapter: Path) -> None:
    client.push(adapter, "sums", alias="prod")
    resolved = client.resolve("sums@prod")
    assert (resolved.alias, resolved.alias_generation) == ("prod", 1)
    assert client.show("sums:1") == resolved.version
    assert resolved.version.created_at_s == 1_780_000_000
    with pytest.raises(errors.NotFound, match="sums:9"):
        client.show("sums:9")
