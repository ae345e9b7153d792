"""The manifest is canonical: its digest is the version's identity and never changes by accident."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from switchyard.registry.digest import canonical_json, sha256_digest
from switchyard.registry.lineage import check_lineage, lineage_from_document
from switchyard.registry.manifest import FILE_TYPES, FileEntry, Lineage, Manifest, Metric, QuantizationSpec
from switchyard.registry.verdicts import Findings, Reason

D = [f"sha256:{digit * 64}" for digit in "0123456789"]
FILES = (
    FileEntry("README.md", D[3], 7),
    FileEntry("adapter_config.json", D[1], 500),
    FileEntry("adapter_model.safetensors", D[2], 4096),
)
LINEAGE = Lineage(
    dataset_digest=D[4],
    recipe_digest=D[5],
    code_commit="abc123",
    training_quantization=QuantizationSpec("nf4", True, "float32"),
    parents=(D[6],),
    metrics=(Metric("exact_match", 1, D[7]), Metric("loss", 0.25)),
    environment={"peft": "0.21.2"},
)


def test_identity_is_a_stored_contract() -> None:
    """A change here gives every version a new identity: it needs a migration, not a new number."""
    manifest = Manifest.of(FILES, D[0], LINEAGE)
    assert manifest.digest == "sha256:d9ed55074e156ad9c1ab24d9da5456009e84267ae5c8c9508bbd78fe036726b5"


def test_layout_is_an_oci_image_manifest() -> None:
    manifest = Manifest.of(FILES, D[0], LINEAGE)
    document = json.loads(manifest.data)
    assert canonical_json(document) == manifest.data
    assert document["schemaVersion"] == 2
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    *layers, lineage = document["layers"]
    assert [layer["annotations"]["org.cncf.model.filepath"] for layer in layers] == [file.path for file in FILES]
    assert [(layer["digest"], layer["size"]) for layer in layers] == [(f.digest, f.size_bytes) for f in FILES]
    assert lineage["digest"] == sha256_digest(manifest.lineage_data)
    assert document["config"]["digest"] == sha256_digest(manifest.config_data)
    diff_ids = json.loads(manifest.config_data)["modelfs"]["diffIds"]
    assert diff_ids == [layer["digest"] for layer in document["layers"]]
    assert [sha256_digest(data) for data in manifest.documents] == [
        lineage["digest"],
        document["config"]["digest"],
        manifest.digest,
    ]


def test_order_of_files_does_not_matter() -> None:
    assert Manifest.of(FILES[::-1], D[0], LINEAGE).digest == Manifest.of(FILES, D[0], LINEAGE).digest


@pytest.mark.parametrize(
    "other",
    [
        Manifest.of(FILES[1:], D[0], LINEAGE),
        Manifest.of((replace(FILES[0], digest=D[9]), *FILES[1:]), D[0], LINEAGE),
        Manifest.of(FILES, D[9], LINEAGE),
        Manifest.of(FILES, D[0], replace(LINEAGE, metrics=())),
        Manifest.of(FILES, D[0], Lineage()),
    ],
)
def test_every_part_of_the_content_counts(other: Manifest) -> None:
    assert other.digest != Manifest.of(FILES, D[0], LINEAGE).digest


def test_every_allowed_file_has_a_media_type() -> None:
    assert all(media_type.startswith("application/vnd.") for media_type in FILE_TYPES.values())


@pytest.mark.parametrize("lineage", [Lineage(), LINEAGE])
def test_lineage_survives_its_document(lineage: Lineage) -> None:
    stored = json.loads(canonical_json(lineage.document(D[0])))
    assert lineage_from_document(stored) == lineage


def test_label() -> None:
    assert QuantizationSpec("nf4", True, "float32").label() == "nf4+double/float32"
    assert QuantizationSpec("none", False, "bfloat16").label() == "none/bfloat16"


def test_every_fault_of_a_lineage_is_listed() -> None:
    findings = Findings()
    bad = Lineage(
        dataset_digest="sha256:short",
        recipe_digest="md5",
        code_commit="a\nb",
        training_quantization=QuantizationSpec("gptq", False, ""),
        parents=("v1",),
        metrics=(Metric("", float("nan"), "x"),),
        environment={"peft": "x" * 300},
    )
    check_lineage(bad, findings)
    assert {verdict.subject for verdict in findings.faults} == {
        "lineage.dataset_digest",
        "lineage.recipe_digest",
        "lineage.code_commit",
        "lineage.training_quantization.method",
        "lineage.training_quantization.compute_dtype",
        "lineage.parents[0]",
        "lineage.metrics[0].name",
        "lineage.metrics[0].value",
        "lineage.metrics[0].dataset_digest",
        "lineage.environment",
    }
    assert {verdict.reason for verdict in findings.faults} == {Reason.LINEAGE}


def test_an_honest_lineage_has_no_fault() -> None:
    findings = Findings()
    check_lineage(LINEAGE, findings)
    assert findings.faults == ()
