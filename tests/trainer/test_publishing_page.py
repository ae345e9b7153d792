"""docs/publishing.md is true: both scripts run, and a real server answers by alias with what they published."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import start_server, stop_server

from switchyard.clients.inference import InferenceClient
from switchyard.clients.registry import RegistryClient
from switchyard.registry.refs import AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import AdapterUnusable, BaseUnusable, PublishFailed, PublishTargetInvalid
from switchyard.trainer.publish import publish
from tests.trainer.conftest import rows, write_rows

SCRIPTS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture(scope="module")
def server(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, addresses = start_server(tiny_base, tmp_path_factory.mktemp("server"))
    yield addresses["grpc"]
    assert stop_server(process) == 0


@pytest.fixture
def here(tiny_base: Path, tmp_path: Path) -> Path:
    """Where the scripts run, with what they read."""
    (tmp_path / "base").symlink_to(tiny_base)
    write_rows(tmp_path / "train.jsonl", rows(0, 64))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=["trl", "transformers"])
def test_the_alias_answers_with_what_the_script_published(
    server: str, here: Path, script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(script.splitlines()) < 40
    (here / "script.py").write_text(script, encoding="utf-8")
    monkeypatch.setenv("SWITCHYARD_SERVER", server)
    runpy.run_path(str(here / "script.py"))
    ref, digest = capsys.readouterr().out.splitlines()[-1].split()

    client = InferenceClient(server)
    answer = client.generate("say 1:", adapter="team/words@candidate", max_tokens=4)
    client.close()
    (served,) = answer.served_by.adapters
    assert (f"team/words:{served.version}", served.digest) == (ref, digest)
    registry = RegistryClient(server)
    lineage = registry.show(ref).lineage
    registry.close()
    assert lineage.environment["peft"]


@pytest.fixture(scope="module")
def saved(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `save_pretrained` writes it, with a pickle of the trainer's beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    directory = tmp_path_factory.mktemp("peft") / "adapter"
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        directory
    )
    (directory / "training_args.bin").write_bytes(b"\x80\x04.")
    return directory


def test_what_is_published_holds_no_path_and_no_pickle(saved: Path, tiny_base: Path, tmp_path: Path) -> None:
    published = publish(saved, ref="words", registry=tmp_path / "registry", out=tmp_path / "kept")
    assert published.ref == "default/words:1"
    with Registry.open(tmp_path / "registry") as registry:
        registry.pull(AdapterRef.parse("words:1"), tmp_path / "pulled")
    config = json.loads((tmp_path / "pulled" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_base.name
    weights = "adapter_model.safetensors"
    assert (tmp_path / "pulled" / weights).read_bytes() == (saved / weights).read_bytes()
    assert not (tmp_path / "pulled" / "training_args.bin").exists()


def test_a_model_and_its_saved_directory_are_the_same_weights(saved: Path, tiny_base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), saved)
    publish(model, ref="words", registry=tmp_path / "registry", out=tmp_path / "kept", base=tiny_base)
    manifest = json.loads((tmp_path / "kept" / "training_manifest.json").read_text())
    assert manifest["lineage"]["training_quantization"]["method"] == "none"
    from safetensors.numpy import load_file

    ours, pefts = (load_file(place / "adapter_model.safetensors") for place in (tmp_path / "kept" / "adapter", saved))
    assert {name: tensor.tobytes() for name, tensor in ours.items()} == {
        name: tensor.tobytes() for name, tensor in pefts.items()
    }


def test_a_server_that_is_down_keeps_the_adapter_and_says_how_to_go_on(saved: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'nobody.sock'}"
    with pytest.raises(PublishFailed) as caught:
        publish(saved, ref="team/words@candidate", server=address, out=tmp_path / "kept")
    command = shlex.split(str(caught.value).splitlines()[-1])
    kept = str(tmp_path / "kept")
    assert command == ["switchyard", "push", kept, "team/words", "--server", address, "--alias", "candidate"]
    assert (tmp_path / "kept" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("places", [{}, {"registry": "r", "server": "host:1"}])
def test_the_place_must_be_clear(saved: Path, places: dict[str, str]) -> None:
    with pytest.raises(PublishTargetInvalid):
        publish(saved, ref="words", **places)  # type: ignore[arg-type]


def test_what_is_no_adapter_is_refused(saved: Path, tiny_base: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(AdapterUnusable, match="adapter_config"):
        publish(tiny_base, ref="words", registry=tmp_path / "r")
    with pytest.raises(AdapterUnusable, match="Linear"):
        publish(torch.nn.Linear(1, 1), ref="words", registry=tmp_path / "r")
    publish(saved, ref="words", registry=tmp_path / "r", out=tmp_path / "kept")
    with pytest.raises(AdapterUnusable, match="kept"):
        publish(saved, ref="words", registry=tmp_path / "r", out=tmp_path / "kept")


def test_an_unknown_base_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    config = json.loads((saved / "adapter_config.json").read_text())
    (tmp_path / "copy" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "nobody/knows-this"})
    )
    with pytest.raises(BaseUnusable, match="nobody/knows-this"):
        publish(tmp_path / "copy", ref="words", registry=tmp_path / "r")
