"""Registered base models. A row never changes, so it is read from the index once."""

from __future__ import annotations

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
        """Registers a base model; one that is known already is returned as it was registered first."""
        with self._index.write() as connection:
            known = self._find(connection, spec.digest)
            if known is not None:
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
                "modules": {module: list(features) for module, features in spec.modules.items()},
            }
            payload = {**row, "registered_at_s": self._index.now()}
            connection.execute(sa.insert(schema.base_model).values(**payload))
            self._index.announce(connection, Change(ChangeKind.BASE_REGISTERED, "", payload=payload))
        return spec

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


def _spec(row: RowMapping) -> BaseModelSpec:
    modules = {module: (int(pair[0]), int(pair[1])) for module, pair in row["modules"].items()}
    return BaseModelSpec(
        name=row["name"],
        digest=row["digest"],
        config_digest=row["config_digest"],
        weights_digest=row["weights_digest"],
        tokenizer_digest=row["tokenizer_digest"],
        chat_template_digest=row["chat_template_digest"],
        architecture=row["architecture"],
        vocab_size=row["vocab_size"],
        modules=MappingProxyType(dict(sorted(modules.items()))),
    )
