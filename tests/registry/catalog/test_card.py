"""The model card says what the version's record says, whatever people have typed into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.card import render
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage, Metric, QuantizationSpec
from switchyard.registry.manifest import FileEntry
from switchyard.registry.records import AdapterShape, VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

DATA = "sha256:" + "1" * 64
SHAPE = AdapterShape(8, ("q_proj", "v_proj"), ("rslora",), "float32", 1234, 4936)


@pytest.fixture(scope="module")
def version(base: BaseModelSpec) -> VersionRecord:
    lineage = Lineage(
        dataset_digest=DATA,
        recipe_digest="sha256:" + "2" * 64,
        code_commit="abc123",
        training_quantization=QuantizationSpec("nf4", True, "float32"),
        metrics=(Metric("exact_match", 0.98, "sha256:" + "3" * 64), Metric("f1", 0.5)),
        environment={"peft": "0.21.2"},
    )
    return VersionRecord(
        namespace="team",
        adapter="addresses",
        version=7,
        digest="sha256:" + "4" * 64,
        base=base,
        shape=SHAPE,
        lineage=lineage,
        files=(FileEntry("README.md", "sha256:" + "5" * 64, 10),),
        publisher="ann",
        note="first\nlight",
        created_at_s=1.0,
        aliases=(),
        warnings=(),
        tags={"task": "ner", "draft": ""},
    )


def test_the_front_matter_is_what_the_hub_reads(version: VersionRecord) -> None:
    data = ModelCard(render(version)).data.to_dict()
    assert data["base_model"] == "tiny"
    assert data["base_model_relation"] == "adapter"
    assert data["library_name"] == "peft"
    assert data["tags"] == ["lora", "switchyard", "base_model:adapter:tiny", "task:ner", "draft"]
    assert data["metrics"] == ["exact_match", "f1"]
    assert data["switchyard"] == {
        "ref": "team/addresses:7",
        "digest": version.digest,
        "base_digest": version.base.digest,
        "dataset_digest": DATA,
        "recipe_digest": version.lineage.recipe_digest,
        "code_commit": "abc123",
    }
    card = ModelCard(render(version))
    scores = {(result.metric_type, result.metric_value, result.dataset_name) for result in card.data.eval_results}
    assert scores == {("exact_match", 0.98, "sha256:" + "3" * 64), ("f1", 0.5, "unknown")}


def test_the_text_says_the_rest(version: VersionRecord) -> None:
    text = ModelCard(render(version)).text
    for part in (
        "# addresses",
        f"| Base model | tiny (`{version.base.digest}`) |",
        "rank 8, q\\_proj, v\\_proj, rslora, float32",
        "| Parameters | 1,234 |",
        "nf4\\+double/float32",
        "> first\n> light",
        "| exact\\_match | 0.98 |",
        "| README.md | 10 |",
    ):
        assert part in text
    assert "This version is" not in text
    yanked = replace(version, state=VersionState.YANKED, state_reason="bad data")
    assert "**This version is YANKED: bad data**" in render(yanked)


def test_a_card_names_the_method(version: VersionRecord) -> None:
    gains = replace(version, shape=replace(SHAPE, rank=0, features=("ia3",)))
    assert "tags:\n- ia3\n" in render(gains)
    assert "An (IA)³ adapter. It belongs" in render(gains)
    assert "rank 0" not in render(gains)
    assert "A LoRA adapter. It belongs" in render(version)


def test_a_version_of_which_little_is_known(version: VersionRecord) -> None:
    bare = replace(version, lineage=Lineage(), note="", tags={})
    card = ModelCard(render(bare))
    assert "metrics" not in card.data.to_dict()
    assert card.data.eval_results is None
    assert "Score" not in card.text


@settings(deadline=None, max_examples=150)
@given(name=st.text(min_size=1, max_size=60), note=st.text(max_size=80), value=st.text(max_size=40))
def test_no_text_escapes(name: str, note: str, value: str, version: VersionRecord) -> None:
    """Whatever is typed stays a value of the front matter, and a line of the body."""
    typed = replace(version, base=replace(version.base, name=name), note=note, tags={"k": value})
    card = ModelCard(render(typed))
    data = card.data.to_dict()
    assert data["base_model"] == " ".join(name.split())
    assert set(data) == {
        "base_model",
        "base_model_relation",
        "library_name",
        "metrics",
        "model-index",
        "pipeline_tag",
        "switchyard",
        "tags",
    }
    headings = [line for line in card.text.splitlines() if line.startswith("#")]
    assert headings == ["# addresses"]
    assert "<" not in card.text.replace("\\<", "")


# -- at publish ----------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "warns"),
    [
        ("---\nbase_model: tiny\n---\n", False),
        ("---\nbase_model: someone/Tiny\n---\n", False),
        ("---\nbase_model: [other, /models/tiny]\n---\n", False),
        ("no front matter, base_model: other", False),
        ("---\nbase_model: [unclosed\n---\n", False),
        ("---\nbase_model: 7\n---\n", False),
        ("---\n- other\n---\n", False),
        ("---\n" + "[" * 5000 + "\n---\n", False),
        ("---\nbase_model: other/llama\n---\n", True),
        ("---\nbase_model: tiny\nswitchyard: {base_digest: sha256:0}\n---\n", True),
    ],
)
def test_a_card_that_names_another_base_is_told(
    card: str,
    warns: bool,
    registry: Registry,
    base: BaseModelSpec,
    name: AdapterName,
    adapter: Callable[[int], Path],
) -> None:
    source = adapter(0)
    (source / "README.md").write_text(card)
    done = registry.publish(name, source, base_digest=base.digest, publisher="ann")
    assert [warning.split()[0] for warning in done.warnings] == ["CARD_BASE"] * warns
    assert done.version is not None
    assert list(done.version.warnings) == list(done.warnings)


def test_the_worker_tells_it_too(
    root: Path, template: Path, base: BaseModelSpec, name: AdapterName, adapter: Callable[[int], Path]
) -> None:
    import shutil

    shutil.copytree(template, root)
    source = adapter(0)
    (source / "README.md").write_text("---\nbase_model: other\n---\n")
    with Registry.open(root) as registry:
        done = registry.publish(name, source, base_digest=base.digest, publisher="ann")
    assert done.warnings[0].startswith("CARD_BASE README.md: says that the base model is 'other'")
