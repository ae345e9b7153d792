"""A registry as the first release wrote it: every table of migration 0001 with rows in it, put there by plain SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import hex_of, sha256_digest
from switchyard.registry.manifest import FileEntry, Lineage, Manifest, Metric
from switchyard.registry.validation.adapter_files import collect_files
from switchyard.registry.verdicts import Findings

DATASET = sha256_digest(b"rows")
LINEAGE = Lineage(dataset_digest=DATASET, metrics=(Metric("exact_match", 0.75, DATASET),), parents=(DATASET,))
_SHAPE = {
    "rank": 8,
    "target_modules": ["q_proj", "v_proj"],
    "features": [],
    "dtype": "float32",
    "parameter_count": 4096,
    "weights_bytes": 16384,
}


class EarlyStore:
    """Two versions of `team/addresses`, three moves of `prod`, an open session, and the bytes.

    Args:
        root: where the blobs go.
        base: the base model.
        sources: the two adapters.
    """

    def __init__(self, root: Path, base: BaseModelSpec, sources: list[Path]) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._base = base
        self.manifests = [self._keep(source) for source in sources]
        self.blob_bytes = sum(path.stat().st_size for path in self._blobs.iterdir())

    def write(self, connection: sa.Connection) -> None:
        """Inserts the rows into the tables of migration 0001."""
        self._insert(connection, "base_model", [self._base_row()])
        sizes = {path.name: path.stat().st_size for path in self._blobs.iterdir()}
        common = {"state": "PRESENT", "created_at_s": 5.5}
        rows = [{"digest": f"sha256:{name}", "size_bytes": size} | common for name, size in sizes.items()]
        self._insert(connection, "blob", rows)
        self._insert(connection, "namespace", [{"name": "team", "created_at_s": 5.5}])
        times = {"created_at_s": 5.5, "updated_at_s": 6.5}
        row = {"namespace_id": 1, "name": "addresses", "next_version": 3}
        self._insert(connection, "adapter", [row | times])
        for number, manifest in enumerate(self.manifests, 1):
            self._write_version(connection, number, manifest)
        alias = {"adapter_id": 1, "name": "prod", "version_id": 2, "generation": 3}
        self._insert(connection, "alias", [alias | {"updated_by": "ann", "updated_at_s": 6.5}])
        moves = [(1, 0, 1), (2, 1, 2), (3, 2, 2)]
        common = {"adapter_id": 1, "name": "prod", "actor": "ann", "reason": "", "created_at_s": 6.5}
        names = ("generation", "from_version", "to_version")
        self._insert(connection, "alias_event", [common | dict(zip(names, move, strict=True)) for move in moves])
        self._write_events(connection)

    def _write_version(self, connection: sa.Connection, number: int, manifest: Manifest) -> None:
        row = {
            "adapter_id": 1,
            "version": number,
            "manifest_digest": manifest.digest,
            "base_digest": self._base.digest,
            "shape": json.dumps(_SHAPE),
            "lineage": json.dumps(LINEAGE.document(self._base.digest)),
            "publisher": "ann",
            "note": "early",
            "warnings": "[]",
            "created_at_s": 5.5,
        }
        self._insert(connection, "version", [row])
        pins = [(entry.path, entry.digest, entry.size_bytes) for entry in manifest.files]
        pins += [("", sha256_digest(document), len(document)) for document in manifest.documents]
        held = [{"version_id": number, "path": path, "digest": digest} for path, digest, _ in pins]
        self._insert(connection, "version_blob", held)
        session = {
            "id": f"{number:032x}",
            "namespace": "team",
            "adapter": "addresses",
            "idempotency_key": f"key-{number}",
            "fingerprint": sha256_digest(f"team/addresses\n{manifest.digest}".encode()),
            "state": "COMMITTED",
            "base_digest": self._base.digest,
            "lineage": row["lineage"],
            "publisher": "ann",
            "note": "early",
            "created_at_s": 5.5,
            "expires_at_s": 10.5,
            "version_id": number,
            "alias_set": "prod",
        }
        self._insert(connection, "upload_session", [session])
        names = ("path", "digest", "size_bytes")
        rows = [{"session_id": session["id"]} | dict(zip(names, pin, strict=True)) for pin in pins]
        self._insert(connection, "session_blob", rows)

    def _write_events(self, connection: sa.Connection) -> None:
        kinds = ["base.registered", "version.created", "version.created", "alias.set", "alias.set", "alias.set"]
        common = {"namespace": "team", "adapter": "addresses", "payload": "{}", "at_s": 6.5}
        self._insert(connection, "event", [{"rev": n, "kind": kind} | common for n, kind in enumerate(kinds, 1)])
        connection.execute(sa.text("UPDATE clock SET rev = 6"))

    def _base_row(self) -> dict[str, Any]:
        base = self._base
        return {
            "digest": base.digest,
            "name": base.name,
            "config_digest": base.config_digest,
            "weights_digest": base.weights_digest,
            "tokenizer_digest": base.tokenizer_digest,
            "chat_template_digest": base.chat_template_digest,
            "architecture": base.architecture,
            "vocab_size": base.vocab_size,
            "modules": json.dumps({module: list(pair) for module, pair in base.modules.items()}),
            "registered_at_s": 5.5,
        }

    def _keep(self, source: Path) -> Manifest:
        files: tuple[FileEntry, ...] = collect_files(source, Findings()).files
        manifest = Manifest.of(files, self._base.digest, LINEAGE)
        for data in (*((source / entry.path).read_bytes() for entry in files), *manifest.documents):
            (self._blobs / hex_of(sha256_digest(data))).write_bytes(data)
        return manifest

    def _insert(self, connection: sa.Connection, table: str, rows: list[dict[str, Any]]) -> None:
        names = list(rows[0])
        values = ", ".join(f":{name}" for name in names)
        connection.execute(sa.text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"), rows)  # noqa: S608
