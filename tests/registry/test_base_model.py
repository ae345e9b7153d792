"""A base model is its content: what changes the answers changes the digest, and nothing else does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from handmade import MODULES, safetensors_file, tensor, write_base, zeros
from numpy import ones

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import BaseRefused
from switchyard.registry.verdicts import Reason


def reasons(directory: Path) -> list[Reason]:
    with pytest.raises(BaseRefused) as caught:
        describe_base(directory)
    return [verdict.reason for verdict in caught.value.verdicts]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_modules_are_the_linear_layers(base: BaseModelSpec) -> None:
    assert dict(base.modules) == MODULES
    assert (base.architecture, base.vocab_size, base.name) == ("LlamaForCausalLM", 96, "tiny")


def test_the_table_equals_the_linear_layers_of_transformers(tmp_path: Path) -> None:
    """The slow twin: build the models and look."""
    import torch
    from tiny_base import make_tiny_llama
    from transformers import AutoModelForCausalLM

    for architecture in ("llama", "mistral", "qwen2", "qwen3", "bloom"):
        directory = make_tiny_llama(tmp_path / architecture, architecture=architecture)
        model = AutoModelForCausalLM.from_pretrained(directory)
        linear = {
            name: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"
        }
        assert dict(describe_base(directory).modules) == linear, architecture


def test_embedding_head_and_biases_are_those_of_transformers(tmp_path: Path) -> None:
    """The slow twin: build the models and look; a head that shares the embedding's weight counts."""
    from tiny_base import make_tiny_llama
    from transformers import AutoModelForCausalLM

    for architecture in ("llama", "qwen2", "bloom", "phi", "gpt2"):
        directory = make_tiny_llama(tmp_path / architecture, architecture=architecture)
        model = AutoModelForCausalLM.from_pretrained(directory)
        biases = {
            name: tuple(parameter.shape) for name, parameter in model.named_parameters() if name.endswith(".bias")
        }
        embedding = next(name for name, one in model.named_modules() if one is model.get_input_embeddings())
        weights = {f"{embedding}.weight": (288, 64), "lm_head.weight": (288, 64)}
        assert dict(describe_base(directory).tensors) == biases | weights, architecture


def test_conv1d_weights_are_read_the_other_way_round(tmp_path: Path) -> None:
    write_base(tmp_path, config={"model_type": "gpt2"})
    weights = {
        "transformer.h.0.attn.c_attn.weight": zeros("F32", 64, 192),
        "transformer.wte.weight": zeros("F32", 96, 64),
    }
    (tmp_path / "model.safetensors").write_bytes(safetensors_file(weights))
    assert dict(describe_base(tmp_path).modules) == {"transformer.h.0.attn.c_attn": (64, 192)}


def test_a_copy_is_the_same_base(tmp_path: Path, base: BaseModelSpec) -> None:
    copy = write_base(tmp_path / "elsewhere")
    edit_json(copy / "config.json", _name_or_path="/other/place", transformers_version="9.9")
    (copy / "README.md").write_text("hello")
    assert describe_base(copy).digest == base.digest
    assert describe_base(copy).name == "elsewhere"


@pytest.mark.parametrize("change", ["rope_theta", "weights", "tokenizer"])
def test_what_changes_the_answers_changes_the_digest(tmp_path: Path, base: BaseModelSpec, change: str) -> None:
    write_base(tmp_path, seed=1 if change == "weights" else 0)
    if change == "rope_theta":
        edit_json(tmp_path / "config.json", rope_theta=500_000.0)
    if change == "tokenizer":
        (tmp_path / "tokenizer.json").write_text("{}")
    other = describe_base(tmp_path)
    assert other.digest != base.digest
    assert other.modules == base.modules
    changed = [
        field
        for field in ("config_digest", "weights_digest", "tokenizer_digest")
        if getattr(other, field) != getattr(base, field)
    ]
    assert changed == [
        {"rope_theta": "config_digest", "weights": "weights_digest", "tokenizer": "tokenizer_digest"}[change]
    ]


def test_the_chat_template_has_a_digest_of_its_own(tmp_path: Path, base: BaseModelSpec) -> None:
    write_base(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ other }}")
    other = describe_base(tmp_path)
    assert other.chat_template_digest not in ("", base.chat_template_digest)
    assert other.digest == base.digest
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    assert describe_base(tmp_path).chat_template_digest == ""


def test_sharded_weights(tmp_path: Path) -> None:
    write_base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shards = {"a.safetensors": "model.layers.0.mlp.up_proj", "b.safetensors": "model.layers.1.mlp.up_proj"}
    for file, module in shards.items():
        (tmp_path / file).write_bytes(safetensors_file({f"{module}.weight": zeros("BF16", 32, 64)}))
    index = {"weight_map": {f"{module}.weight": file for file, module in shards.items()}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert dict(describe_base(tmp_path).modules) == dict.fromkeys(shards.values(), (64, 32))
    (tmp_path / "b.safetensors").rename(tmp_path / "c.safetensors")
    assert reasons(tmp_path) == [Reason.FILE_MISSING, Reason.FILE_MISSING]


def test_every_fault_is_listed(tmp_path: Path) -> None:
    write_base(tmp_path, config={"auto_map": {"AutoModel": "evil.Model"}, "vocab_size": "many"})
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    assert set(reasons(tmp_path)) == {
        Reason.CONFIG_FIELD_REFUSED,
        Reason.CONFIG_VALUE,
        Reason.FILE_NOT_ALLOWED,
        Reason.HEADER_LENGTH,
    }


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, Reason.FEATURE_UNSUPPORTED),
        ({"architectures": []}, Reason.CONFIG_VALUE),
        ({"vocab_size": True}, Reason.CONFIG_VALUE),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, config: dict[str, Any], reason: Reason) -> None:
    assert reasons(write_base(tmp_path, config=config)) == [reason]


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    assert reasons(tmp_path / "nowhere") == [Reason.FILE_MISSING, Reason.FILE_MISSING]
    write_base(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(safetensors_file({"model.norm.weight": tensor(ones(4, "f4"))}))
    assert reasons(tmp_path) == [Reason.NO_TARGETS]


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    write_base(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "model-2.safetensors")
    assert set(reasons(tmp_path)) == {Reason.DUPLICATE_KEY}


def test_code_in_the_tokenizer_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path)
    edit_json(tmp_path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
    assert reasons(tmp_path) == [Reason.CONFIG_FIELD_REFUSED]
