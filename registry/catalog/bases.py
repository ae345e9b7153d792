"""Registered base models. A row never changes, so it is read from the index once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.errors import BaseNotFound
from switchyard.registry.index import schema
from switchyard.registry.index.changes import Change, ChangeKind
from switchyard.registry.index.database import Index
from switchyard.registry.strict_json import Json


class BaseModels:
    """The base models that adapters can be published for.

    Args:
        index: where they are kept.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[str, BaseModelSpec] = {}

    def register(self, spec: BaseModelSpec) -> BaseModelSpec:
        """Registers a base model; one that is known already is returned as it was registered first.

        One from before the shapes of embedding and head were recorded is registered anew with them.
        """
        with self._index.write() as connection:
            known = self._find(connection, spec.digest)
            if known is not None and (known.tensors or not spec.tensors):
                return known
            row: dict[str, Json] = {
                "digest": spec.digest,
                "name": spec.name,
                "config_digest": spec.config_digest,
                "weights_digest": spec.weights_digest,
                "tokenizer_digest": spec.tokenizer_digest,
                "chat_template_digest": spec.chat_template_digest,
                "architecture": spec.architecture,
                "vocab_size": spec.vocab_size,
                "modules": _table(spec),
            }
            payload = {**row, "registered_at_s": self._index.now()}
            write_base(connection, payload)
            self._index.announce(connection, Change(ChangeKind.BASE_REGISTERED, "", payload=payload))
        self._known.pop(spec.digest, None)
        return spec if known is None else replace(known, tensors=spec.tensors)

    def get(self, connection: Connection, digest: str) -> BaseModelSpec:
        """Returns the base model of that digest.

        Raises:
            BaseNotFound: it is not registered.
        """
        found = self._find(connection, digest)
        if found is None:
            raise BaseNotFound(f"no base model {digest} is registered; register the one you trained on first")
        return found

    def all(self) -> list[BaseModelSpec]:
        """Returns every base model, in the order of registration."""
        table = schema.base_model
        with self._index.read() as connection:
            rows = connection.execute(sa.select(table).order_by(table.c.registered_at_s, table.c.digest))
            return [_spec(row) for row in rows.mappings()]

    def _find(self, connection: Connection, digest: str) -> BaseModelSpec | None:
        if digest not in self._known:
            query = sa.select(schema.base_model).where(schema.base_model.c.digest == digest)
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                return None
            self._known[digest] = _spec(row)
        return self._known[digest]


def write_base(connection: Connection, row: Mapping[str, Json]) -> None:
    """Writes the row of a base model, over the one that is there."""
    table = schema.base_model
    known = sa.update(table).where(table.c.digest == row["digest"])
    if connection.execute(known.values(modules=row["modules"])).rowcount == 0:
        connection.execute(sa.insert(table).values(**row))


def _table(spec: BaseModelSpec) -> dict[str, Json]:
    """Linear layers by path and other parameters by name in one column; no path ends like a parameter's name."""
    modules: dict[str, Json] = {module: list(features) for module, features in spec.modules.items()}
    return modules | {name: list(shape) for name, shape in spec.tensors.items()}


def _spec(row: RowMapping) -> BaseModelSpec:
    table = {name: tuple(int(length) for length in lengths) for name, lengths in sorted(row["modules"].items())}
    tensors = {name: shape for name, shape in table.items() if name.endswith((".weight", ".bias"))}
    modules = {name: (shape[0], shape[1]) for name, shape in table.items() if name not in tensors}
    return BaseModelSpec(
        name=row["name"],
        digest=row["digest"],
        config_digest=row["config_digest"],
        weights_digest=row["weights_digest"],
        tokenizer_digest=row["tokenizer_digest"],
        chat_template_digest=row["chat_template_digest"],
        architecture=row["architecture"],
        vocab_size=row["vocab_size"],
        modules=MappingProxyType(modules),
        tensors=MappingProxyType(tensors),
    )
