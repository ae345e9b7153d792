"""What a call reaches when it names no adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import write_adapter, write_base
from publishing import begin, publish
from signers import make_signer

from switchyard.registry.access import reach
from switchyard.registry.access.resources import Resource
from switchyard.registry.base_model import BaseModelSpec, describe_base
from switchyard.registry.refs import AdapterName
from switchyard.registry.statements.signing import Signed, sign_version
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

NER, SQL = AdapterName("red", "ner"), AdapterName("blue", "sql")
ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "r", validate=validate_files) as opened:
        yield opened


@pytest.fixture
def base(registry: Registry, tmp_path: Path) -> BaseModelSpec:
    return registry.register_base(describe_base(write_base(tmp_path / "base")))


def test_a_blob_belongs_to_every_adapter_that_has_it(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a")
    first = publish(registry, base, NER, source, set_alias="prod")
    publish(registry, base, SQL, source)
    red, prod, blue = Resource("red", "ner"), Resource("red", "ner", "prod"), Resource("blue", "sql")
    assert set(registry.reach.of_blob(first.files[0].digest)) == {red, prod, blue}
    assert registry.reach.of_blob(ABSENT) == ()
    assert registry.reach.of_blob("' OR 1=1 --") == ()
    assert registry.reach.of_statement("none") == ()


def test_a_statement_belongs_where_it_was_attached(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a")
    first = publish(registry, base, NER, source)
    publish(registry, base, SQL, source)
    said = registry.statements.attach(NER, first.digest, "approval", b"{}", actor="bob")
    assert registry.reach.of_statement(said.id) == (Resource("red", "ner"),)
    assert registry.reach.of_blob(said.digest) == (Resource("red", "ner"),)
    bob = make_signer(tmp_path, "bob")
    bundle = sign_version(Signed(first.digest, first.files), bob.private)
    signed = registry.statements.attach(
        NER, first.digest, "signature", bundle, actor="bob", trusted_keys=[bob.public]
    )
    assert set(registry.reach.of_statement(signed.id)) == {Resource("red", "ner"), Resource("blue", "sql")}
    assert set(registry.reach.of_blob(signed.digest)) == {Resource("red", "ner"), Resource("blue", "sql")}


def test_a_session_belongs_to_the_adapter_it_publishes(
    registry: Registry, base: BaseModelSpec, tmp_path: Path
) -> None:
    session = begin(registry, base, NER, write_adapter(tmp_path / "a"))
    assert registry.reach.of_session(session.session_id) == (Resource("red", "ner"),)
    assert registry.reach.of_session("none") == ()
    # Bytes that are only on their way are nobody's yet.
    assert registry.reach.of_blob(session.missing[0]) == ()


def test_many_versions_of_one_adapter_hide_no_other(
    registry: Registry, base: BaseModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "_MOST", 2)
    for seed in range(4):
        shared = publish(registry, base, SQL, write_adapter(tmp_path / f"blue-{seed}", seed=seed))
    publish(registry, base, NER, write_adapter(tmp_path / "red", seed=9))
    config = shared.file("adapter_config.json").digest
    assert set(registry.reach.of_blob(config)) == {Resource("blue", "sql"), Resource("red", "ner")}


def test_the_aliases_on_a_version(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> None:
    for seed in range(2):
        publish(registry, base, NER, write_adapter(tmp_path / f"{seed}", seed=seed), set_alias=f"a{seed}")
    registry.aliases.set_canary(NER, "a0", 2, 10, actor="ann", reason="")
    assert registry.reach.aliases_on(NER, 1) == (Resource("red", "ner", "a0"),)
    assert registry.reach.aliases_on(NER, 2) == (Resource("red", "ner", "a0"), Resource("red", "ner", "a1"))
    assert registry.reach.aliases_on(NER, 3) == ()
