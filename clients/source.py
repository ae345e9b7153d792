"""The directory that is pushed: its files, their digests, the lineage beside them.

Judges nothing that the registry judges. Refuses only what cannot be read safely:
opening a named pipe would wait for ever, and a link would publish a file that
its owner never chose.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from switchyard.clients.errors import Fault, SourceInvalid
from switchyard.clients.records import Lineage, Metric, Quantization

MANIFEST_NAME: Final = "training_manifest.json"
"""What a training run leaves beside its adapter; becomes the lineage of the version."""

LEFT_OUT: Final = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "loss.png",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "trainer_state.json",
        "vocab.json",
    }
)
"""Harmless files that PEFT and TRL write beside an adapter and no version holds; the registry's list."""

SIGNATURE_NAME: Final = "signature.sigstore.json"
"""A signature over the files is attached to the version; it is none of them."""

_LEFT_OUT_DIRECTORY: Final = re.compile(r"(?:checkpoint-[0-9]{1,12}|runs|logs)")

_CONFIG_NAME: Final = "adapter_config.json"
_READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to push.

    Attributes:
        path: its name inside the version, with `/`.
        file: where it lies.
        digest: `sha256:<hex>` of its bytes when it was read.
        size_bytes: its size when it was read.
    """

    path: str
    file: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the training manifest beside an adapter says; empty without one.

    Attributes:
        lineage: what produced the adapter.
        base_digest: base model that it was trained on; empty when not said.
    """

    lineage: Lineage = field(default_factory=Lineage)
    base_digest: str = ""


def adapter_directory(directory: Path) -> Path:
    """Returns the directory that holds the adapter: `directory`, or `adapter/` in a run's output.

    Raises:
        SourceInvalid: there is no such directory.
    """
    if not directory.is_dir():
        raise SourceInvalid(
            f"nothing to push: found no directory at {directory}. Expected the directory of an adapter "
            f"({_CONFIG_NAME}, adapter_model.safetensors) or the output of `switchyard train`."
        )
    inner = directory / "adapter"
    if not (directory / _CONFIG_NAME).exists() and (inner / _CONFIG_NAME).exists():
        return inner
    return directory


def read_source(directory: Path) -> tuple[SourceFile, ...]:
    """Reads every file below `directory`, but for those left out, and takes its digest.

    Raises:
        SourceInvalid: links, pipes or devices, all of them listed; or no file at all.
    """
    files: list[SourceFile] = []
    faults: list[Fault] = []
    skipped = left_out(directory)
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or name.partition("/")[0] in skipped:
            continue
        if not stat.S_ISREG(mode):
            found = stat.filemode(mode)
            faults.append(Fault(name, "NOT_REGULAR_FILE", f"found {found}, expected a plain file"))
            continue
        files.append(_read_file(name, path))
    if faults or not files:
        raise SourceInvalid(
            f"{directory} cannot be pushed: expected plain files, found "
            + (f"{len(faults)} that are not." if faults else "none."),
            faults=tuple(faults),
        )
    return tuple(files)


def left_out(directory: Path) -> tuple[str, ...]:
    """Names directly in `directory` that are not pushed because no version holds them."""
    return tuple(
        sorted(
            path.name
            for path in directory.iterdir()
            if (
                _LEFT_OUT_DIRECTORY.fullmatch(path.name)
                if path.is_dir()
                else path.name in {*LEFT_OUT, SIGNATURE_NAME}
            )
        )
    )


def push_key(adapter: str, files: Sequence[SourceFile], base_digest: str, lineage: bytes) -> str:
    """Names a push by all that it pushes, so that doing it twice gives one version.

    Args:
        adapter: where to.
        files: what.
        base_digest: base model that it is for; the same files for another one are another push.
        lineage: what is said of their origin, serialised.
    """
    document = {
        "adapter": adapter,
        "files": sorted((one.path, one.digest) for one in files),
        "base": base_digest,
        "lineage": hashlib.sha256(lineage).hexdigest(),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_provenance(directory: Path) -> Provenance:
    """Reads the training manifest in `directory` or, for the `adapter/` of a run, beside it.

    Raises:
        SourceInvalid: the manifest is there and is not what a training run writes.
    """
    for place in (directory, directory.parent) if directory.name == "adapter" else (directory,):
        path = place / MANIFEST_NAME
        if path.is_file():
            return _provenance_in(path)
    return Provenance()


def _read_file(name: str, path: Path) -> SourceFile:
    hasher = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            hasher.update(block)
            size_bytes += len(block)
    return SourceFile(name, path, f"sha256:{hasher.hexdigest()}", size_bytes)


def _provenance_in(path: Path) -> Provenance:
    try:
        document = json.loads(path.read_bytes())
        lineage = document.get("lineage", document)
        return Provenance(_lineage_of(lineage), str(document.get("base_digest") or ""))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise SourceInvalid(
            f"{path} cannot be read as a training manifest: {error}. "
            "Expected the JSON that `switchyard train` writes; delete the file to push without lineage."
        ) from error


def _lineage_of(document: Mapping[str, object]) -> Lineage:
    return Lineage(
        dataset_digest=str(document.get("dataset_digest") or ""),
        recipe_digest=str(document.get("recipe_digest") or ""),
        code_commit=str(document.get("code_commit") or ""),
        training_quantization=_quantization_of(document.get("training_quantization")),
        parents=tuple(str(one) for one in _list(document.get("parents"))),
        metrics=tuple(_metric_of(one) for one in _list(document.get("metrics"))),
        environment={str(k): str(v) for k, v in _mapping(document.get("environment") or {}).items()},
    )


def _quantization_of(found: object) -> Quantization | None:
    if found is None:
        return None
    document = _mapping(found)
    return Quantization(
        str(document["method"]), bool(document["double_quantization"]), str(document["compute_dtype"])
    )


def _metric_of(found: object) -> Metric:
    document = _mapping(found)
    value = document["value"]
    if not isinstance(value, int | float):
        raise TypeError(f"a metric's value must be a number, found {value!r}")
    return Metric(str(document["name"]), float(value), str(document.get("dataset_digest") or ""))


def _list(found: object) -> list[object]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise TypeError(f"expected a list, found {type(found).__name__}")
    return found


def _mapping(found: object) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise TypeError(f"expected an object, found {type(found).__name__}")
    return found
