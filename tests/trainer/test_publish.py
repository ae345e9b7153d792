from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.trainer.errors import PublishFailed, PublishTargetInvalid
from switchyard.trainer.publish import PublishTarget, publish_run, publish_target
from switchyard.trainer.result import TrainResult
from switchyard.trainer.run import train
from tests.trainer.conftest import MakeRecipe


@pytest.fixture
def result(make_recipe: MakeRecipe, tmp_path: Path) -> TrainResult:
    return train(make_recipe(train={"max_steps": 2}), out_dir=tmp_path / "run", threads=1)


def target(result: TrainResult, root: Path, alias: str | None = None) -> PublishTarget:
    return PublishTarget(AdapterName("default", result.name), alias, root, None)


def test_a_run_becomes_a_version_with_its_lineage(result: TrainResult, tmp_path: Path) -> None:
    published = publish_run(result, target(result, tmp_path / "registry", "candidate"))

    assert published.ref == "default/tiny:1"
    assert published.alias == "candidate"
    with Registry.open(tmp_path / "registry") as registry:
        resolved = registry.resolve(AdapterRef.parse("tiny@candidate"))
        version = resolved.version
        assert version.digest == published.digest
        assert version.base == result.base
        assert version.lineage == result.lineage
        assert version.shape.rank == 8
        registry.pull(AdapterRef.parse("tiny:1"), tmp_path / "pulled")
    for file in result.output.adapter.iterdir():
        assert (tmp_path / "pulled" / file.name).read_bytes() == file.read_bytes()


def test_publishing_again_moves_the_alias(result: TrainResult, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    publish_run(result, target(result, root))
    published = publish_run(result, target(result, root, "stable"))
    with Registry.open(root) as registry:
        assert registry.resolve(AdapterRef.parse("tiny@stable")).version.digest == published.digest


def test_equal_runs_publish_equal_versions(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"max_steps": 2})
    digests = set()
    for name in ("a", "b"):
        result = train(recipe, out_dir=tmp_path / name, threads=1)
        digests.add(publish_run(result, target(result, tmp_path / f"registry-{name}")).digest)
    assert len(digests) == 1


def test_a_refused_publish_keeps_the_adapter_and_says_how_to_go_on(result: TrainResult, tmp_path: Path) -> None:
    weights = result.output.adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    root = tmp_path / "my registry"
    with pytest.raises(PublishFailed) as caught:
        publish_run(result, target(result, root, "candidate"))
    assert weights.exists()
    command = shlex.split(str(caught.value).splitlines()[-1])
    run = str(result.output.directory)
    assert command == ["switchyard", "push", run, "default/tiny", "--registry", str(root), "--alias", "candidate"]


def test_a_server_that_is_down_keeps_the_adapter(result: TrainResult, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'nobody.sock'}"
    with pytest.raises(PublishFailed, match="--server") as caught:
        publish_run(result, PublishTarget(AdapterName("default", "tiny"), None, None, address))
    assert result.output.adapter.is_dir()
    assert f"switchyard push {result.output.directory} default/tiny --server {address}" in str(caught.value)


def test_a_registry_that_cannot_be_opened_keeps_the_adapter(result: TrainResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(PublishFailed):
        publish_run(result, target(result, tmp_path / "file"))
    assert result.output.adapter.is_dir()


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (None, "team/address@candidate"),
        ("other", "default/other@candidate"),
        ("ns/other@stable", "ns/other@stable"),
    ],
)
def test_the_command_line_wins_over_the_recipe(make_recipe: MakeRecipe, ref: str | None, expected: str) -> None:
    recipe = make_recipe(publish={"ref": "team/address", "alias": "candidate"})
    found = publish_target(recipe, ref=ref, registry=Path("r"), server=None)
    assert found is not None
    assert f"{found.name}@{found.alias}" == expected


def test_without_a_place_nothing_is_published(make_recipe: MakeRecipe) -> None:
    assert publish_target(make_recipe(), ref=None, registry=None, server=None) is None


@pytest.mark.parametrize(
    ("ref", "registry", "server"),
    [
        ("x", None, None),
        ("x", Path("r"), "host:1"),
        ("x:3", Path("r"), None),
        ("x@sha256:" + "0" * 64, Path("r"), None),
        ("Not A Name", Path("r"), None),
        ("a/b/c", Path("r"), None),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_training(
    make_recipe: MakeRecipe, ref: str, registry: Path | None, server: str | None
) -> None:
    with pytest.raises(PublishTargetInvalid):
        publish_target(make_recipe(), ref=ref, registry=registry, server=server)
