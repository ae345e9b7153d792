"""Hugging Face Hub repositories: a version from one, and a version as one.

The serving path never touches the Hub. An import pins a full commit, copies the
bytes and hashes them here; from then on the version is the registry's own. An
export is a directory that the Hub, PEFT and other servers read as it is.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from switchyard.registry.catalog import card
from switchyard.registry.digest import canonical_json
from switchyard.registry.errors import ArgumentInvalid, VersionRefused
from switchyard.registry.lineage import Lineage, lineage_from_document
from switchyard.registry.manifest import FILE_TYPES, MODEL_CARD
from switchyard.registry.records import PublishResult, VersionRecord
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.storage.durable import mapped_os_errors, new_directory, write_new
from switchyard.registry.store import Registry
from switchyard.registry.strict_json import JsonRefused, parse_json
from switchyard.registry.verdicts import Findings, Reason, shown

PASSPORT = "switchyard.json"
"""Name of the file that carries lineage and digest through a Hub repository."""

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?\Z")
_PASSPORT_BYTES = 1 << 20

Download = Callable[[str, str, Path], Path]
"""Fetches a repository at a commit into a directory and returns where it lies."""


@dataclass(frozen=True, slots=True)
class HubImport:
    """The outcome of an import.

    Attributes:
        result: the version, with its warnings.
        left_out: files of the repository that no version holds, sorted.
    """

    result: PublishResult
    left_out: tuple[str, ...]


def import_hub(
    registry: Registry,
    source: str,
    name: AdapterName,
    *,
    base_digest: str,
    publisher: str,
    revision: str = "",
    download: Download | None = None,
) -> HubImport:
    """Publishes what lies in a Hub repository.

    Args:
        registry: where the version goes.
        source: a directory in the Hub's layout (a checkout or a snapshot of its cache), or a repository id.
        name: the adapter.
        base_digest: the registered base model it was trained on.
        publisher: who imports.
        revision: full commit of a repository id; a name of a branch could mean other bytes tomorrow.
        download: fetches a repository id; huggingface_hub when None.

    Raises:
        ArgumentInvalid: the id or the commit.
        VersionRefused: faults in the files, all of them.
        BaseNotFound, StorageError: see `Registry.publish`.
    """
    with tempfile.TemporaryDirectory(prefix="switchyard-hub-") as scratch:
        local = Path(source)
        if local.is_dir():
            note = f"imported from the directory {shown(local.name)}"
        else:
            _check_pinned(source, revision)
            local = (download or _download)(source, revision, Path(scratch) / "download")
            note = f"imported from {source} at commit {revision}"
        staged = Path(scratch) / "staged"
        staged.mkdir()
        left_out = _stage(local, staged)
        result = registry.publish(
            name,
            staged,
            base_digest=base_digest,
            lineage=_lineage(local),
            publisher=publisher,
            note=note,
        )
    return HubImport(result, left_out)


def export_hub(registry: Registry, ref: AdapterRef, dest: Path) -> VersionRecord:
    """Writes a version as a Hub repository: its files, a model card, and a passport that import reads.

    Raises:
        NotFound: nothing of that name.
        DestinationExists: `dest` holds something already.
        BlobCorrupt, StorageError: nothing usable is left behind.
    """
    version = registry.resolve(ref).version
    with new_directory(dest) as staged:
        for entry in version.files:
            write_new(staged / entry.path, registry.open_blob(entry.digest))
        if not (staged / MODEL_CARD).exists():
            write_new(staged / MODEL_CARD, [card.render(version).encode()])
        write_new(staged / PASSPORT, [_passport(version)])
    return version


def _check_pinned(source: str, revision: str) -> None:
    if _REPOSITORY.match(source) is None:
        raise ArgumentInvalid(f"{shown(source)} is no directory and no Hub repository id like `owner/name`")
    if _COMMIT.match(revision) is None:
        raise ArgumentInvalid(
            f"revision {shown(revision)} of {source} is not a full commit; expected 40 hexadecimal characters, "
            "because a branch or tag can mean other bytes tomorrow"
        )


def _download(source: str, revision: str, directory: Path) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*FILE_TYPES, PASSPORT]
    return Path(snapshot_download(source, revision=revision, local_dir=directory, allow_patterns=patterns))


def _stage(source: Path, staged: Path) -> tuple[str, ...]:
    """Copies what a version holds; returns the names of everything else.

    A snapshot in the Hub's cache is a directory of links into the `blobs` beside it. Those links are
    followed and no others.
    """
    snapshot = source.resolve()
    cache = snapshot.parent.parent / "blobs" if snapshot.parent.name == "snapshots" else None
    left_out, findings = [], Findings()
    with mapped_os_errors(f"reading {source}"):
        for entry in sorted(source.iterdir()):
            of_cache = cache is not None and entry.resolve().is_relative_to(cache)
            if entry.name not in FILE_TYPES:
                left_out.append(entry.name)
            elif (entry.is_symlink() and not of_cache) or not entry.is_file():
                message = "is not a regular file, nor a link into the cache's blobs; copy the file itself here"
                findings.fault(Reason.NOT_REGULAR_FILE, entry.name, message)
            else:
                shutil.copyfile(entry, staged / entry.name)
    if findings.faults:
        raise VersionRefused(findings.faults)
    return tuple(name for name in left_out if name != PASSPORT)


def _lineage(source: Path) -> Lineage:
    """The lineage that an export of ours has put there; nothing for other repositories."""
    path = source / PASSPORT
    if not path.is_file() or path.is_symlink():
        return Lineage()
    if path.stat().st_size > _PASSPORT_BYTES:
        raise ArgumentInvalid(
            f"{PASSPORT} has more than {_PASSPORT_BYTES} bytes; remove it to import without lineage"
        )
    try:
        document = parse_json(path.read_bytes())
        lineage = document.get("lineage") if isinstance(document, dict) else None
        if not isinstance(lineage, dict):
            raise TypeError("no lineage")
        return lineage_from_document(lineage)
    except (JsonRefused, KeyError, TypeError) as error:
        raise ArgumentInvalid(f"{PASSPORT} does not hold a lineage ({error}); remove it to import without") from error


def _passport(version: VersionRecord) -> bytes:
    document = {
        "adapter": str(version.name),
        "version": version.version,
        "digest": version.digest,
        "base_digest": version.base.digest,
        "lineage": version.lineage.document(version.base.digest),
    }
    return json.dumps(json.loads(canonical_json(document)), indent=2, ensure_ascii=False).encode() + b"\n"
