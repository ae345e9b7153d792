"""A registry that has been lived in, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from decay import abandon
from handmade import ManualClock, write_adapter
from publishing import begin, publish, send_all

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.index.schema import VersionState
from switchyard.registry.manifest import Lineage, Metric
from switchyard.registry.refs import AdapterName, AdapterRef
from switchyard.registry.store import Registry
from switchyard.registry.validation.validator import validate_files

DATASET = "sha256:" + "d" * 64


@pytest.fixture(scope="session")
def lived_in_template(tmp_path_factory: pytest.TempPathFactory, template: Path, base: BaseModelSpec) -> Path:
    """Versions in several states, aliases that moved, split and went, a statement, rules, leftovers of all kinds."""
    directory = tmp_path_factory.mktemp("lived-in")
    root, clock = Path(shutil.copytree(template, directory / "registry")), ManualClock()
    sources = [write_adapter(directory / str(seed), seed=seed) for seed in range(7)]
    name, other = AdapterName("team", "addresses"), AdapterName("team", "other")
    lineage = Lineage(dataset_digest=DATASET, metrics=(Metric("exact_match", 0.5, DATASET),))
    with Registry.open(root, clock=clock, validate=validate_files) as registry:
        publish(registry, base, name, sources[0], set_alias="prod", lineage=lineage, note="the first")
        for seed in (1, 2, 3):
            publish(registry, base, name, sources[seed], set_alias="prod")
        publish(registry, base, other, sources[0], set_alias="old")
        registry.aliases.delete(other, "old", actor="ann", reason="renamed")
        registry.aliases.rollback(name, "prod", actor="ann", reason="a drill")
        registry.aliases.set_canary(name, "prod", 4, 10, actor="ann", reason="try it")
        third = registry.get_version(AdapterRef.parse("team/addresses:3"))
        registry.statements.attach(
            name, third.digest, "approval", b'{"approver": "bob", "note": "fine"}', actor="bob"
        )
        registry.labels.tag(name, 3, {"task": "addresses"}, actor="ann")
        registry.policies.set(name, "prod", AliasPolicy(min_approvals=1), actor="ann")
        registry.access.create_principal("bob", actor="ann")
        registry.access.create_token("bob", actor="ann")
        registry.states.move(name, 1, VersionState.DELETED, actor="ann", reason="too old")
        registry.states.move(name, 2, VersionState.YANKED, actor="ann", reason="wrong data")
        clock.now_s += 700_000
        registry.collector.collect(dry_run=False, grace_s=0, actor="ops")
        abandon(registry, base, name, sources[5], "given up")
        send_all(registry, begin(registry, base, name, sources[6], "open"), sources[6])
    return root


@pytest.fixture
def lived_in(root: Path, lived_in_template: Path, clock: ManualClock) -> Iterator[Registry]:
    shutil.copytree(lived_in_template, root)
    clock.now_s = 702_000.0
    with Registry.open(root, clock=clock, validate=validate_files) as opened:
        yield opened
