"""Publishing: the whole version or none, once per idempotency key, and one version per content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from databases import on_both
from handmade import lora_tensors, write_adapter, write_base, zeros
from publishing import begin, entries, publish

from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.errors import (
    DigestMismatch,
    VersionRefused,
)
from switchyard.registry.manifest import Lineage, Manifest, Metric
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry
from switchyard.registry.verdicts import Reason

pytestmark = on_both
Make = Callable[[int], Path]


def events(registry: Registry) -> list[str]:
    return [event.kind for event in registry.feed.events(0)]


def test_a_published_version(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    source = adapter(1)
    lineage = Lineage(code_commit="abc", metrics=(Metric("exact_match", 0.99),), environment={"peft": "0.21.2"})
    version = publish(registry, base, name, source, lineage=lineage, note="first\nlight", set_alias="prod")
    assert (version.namespace, version.adapter, version.version) == ("team", "addresses", 1)
    assert version.digest == Manifest.of(entries(source), base.digest, lineage).digest
    assert version.base == base
    assert version.lineage == lineage
    assert list(version.files) == entries(source)
    assert (version.publisher, version.note) == ("ann", "first\nlight")
    assert version.aliases == ("prod",)
    assert version.warnings == ()
    for entry in version.files:
        assert registry.read_blob(entry.digest) == (source / entry.path).read_bytes()


def test_versions_count_from_one_per_adapter(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    numbers = [publish(registry, base, name, adapter(seed)).version for seed in range(3)]
    assert numbers == [1, 2, 3]
    assert publish(registry, base, AdapterName("other", "addresses"), adapter(0)).version == 1


def test_the_same_content_is_the_same_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make, root: Path
) -> None:
    first = publish(registry, base, name, adapter(0))
    again = registry.publish(name, adapter(0), base_digest=base.digest, publisher="bob", set_alias="prod")
    assert again.version == replace(first, aliases=("prod",))
    assert any(warning.startswith("ALREADY_PUBLISHED") for warning in again.warnings)
    assert publish(registry, base, name, adapter(1)).version == 2
    blobs = list((root / "blobs" / "sha256").iterdir())
    assert len(blobs) == len({path.name for path in blobs}) == 10


def test_another_lineage_is_another_version_of_the_same_blobs(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    first = publish(registry, base, name, adapter(0))
    second = publish(registry, base, name, adapter(0), lineage=Lineage(code_commit="other"))
    assert (second.version, second.files) == (2, first.files)
    assert second.digest != first.digest


def test_events_are_written_with_what_they_tell(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    publish(registry, base, name, adapter(0), set_alias="prod")
    registry.set_alias(name, "canary", 1, actor="ann")
    assert events(registry) == ["base.registered", "version.created", "alias.set", "alias.set"]


# -- refusals ------------------------------------------------------------


def test_hostile_files_never_become_a_version(
    registry: Registry, base: BaseModelSpec, name: AdapterName, tmp_path: Path, root: Path
) -> None:
    for kind, tensors in {
        "lm_head": lora_tensors() | {"lm_head.weight": zeros("F32", 96, 64)},
        "base layer": lora_tensors()
        | {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight": zeros("F32", 64, 64)},
        "NaN": {key: (dtype, shape, b"\xff" * len(data)) for key, (dtype, shape, data) in lora_tensors().items()},
    }.items():
        with pytest.raises(VersionRefused) as caught:
            publish(registry, base, name, write_adapter(tmp_path / kind, tensors=tensors))
        assert {verdict.reason for verdict in caught.value.verdicts} <= {Reason.TENSOR_NAME, Reason.NON_FINITE}
    assert registry.list_adapters() == ([], "")
    assert events(registry) == ["base.registered"]


def test_a_pickle_is_refused_with_its_name(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    (source / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(VersionRefused, match=r"FILE_NOT_ALLOWED 'adapter_model\.bin'"):
        publish(registry, base, name, source)


def test_the_wrong_base_is_refused(registry: Registry, name: AdapterName, tmp_path: Path, adapter: Make) -> None:
    """A base whose layers have other widths."""
    import json

    from handmade import safetensors_file

    directory = write_base(tmp_path / "wide")
    weights = {
        f"model.layers.{n}.self_attn.{p}.weight": zeros("F32", 128, 128) for n in (0, 1) for p in ("q_proj", "v_proj")
    }
    (directory / "model.safetensors").write_bytes(safetensors_file(weights))
    wide = registry.register_base(describe_base(directory))
    with pytest.raises(VersionRefused) as caught:
        publish(registry, wide, name, adapter(0))
    assert {verdict.reason for verdict in caught.value.verdicts} == {Reason.BASE_MISMATCH}
    assert len(caught.value.verdicts) == 4
    assert json.loads((adapter(0) / "adapter_config.json").read_text())["r"] == 8


def test_faults_of_files_and_lineage_come_together(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    (source / "x.py").write_text("")
    with pytest.raises(VersionRefused) as caught:
        publish(registry, base, name, source, lineage=Lineage(dataset_digest="x"))
    assert {verdict.reason for verdict in caught.value.verdicts} == {Reason.FILE_NOT_ALLOWED, Reason.LINEAGE}


def test_a_file_that_changes_while_it_is_published(
    registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make
) -> None:
    source = adapter(0)
    session = begin(registry, base, name, source)
    readme = entries(source)[0]
    (source / "README.md").write_text("adapter X\n")
    with pytest.raises(DigestMismatch):
        registry.upload(session.session_id, readme.digest, 0, [(source / "README.md").read_bytes()])


def test_files_left_out_are_told(registry: Registry, base: BaseModelSpec, name: AdapterName, adapter: Make) -> None:
    source = adapter(0)
    (source / "tokenizer.json").write_text("{}")
    done = registry.publish(name, source, base_digest=base.digest, publisher="ann")
    assert done.warnings == ("FILE_IGNORED 'tokenizer.json': not part of a version, left out",)
    assert done.version is not None
    assert done.version.warnings == ()
