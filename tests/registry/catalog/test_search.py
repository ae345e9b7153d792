"""Search answers what a look at every version answers, by pages of any size, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from databases import on_both
from handmade import lora_config, lora_tensors, write_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from version_oracle import fits

from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.catalog import search as search_module
from switchyard.registry.catalog.query import VersionQuery
from switchyard.registry.errors import ArgumentInvalid
from switchyard.registry.index.schema import VersionState
from switchyard.registry.lineage import Lineage, Metric
from switchyard.registry.records import VersionRecord
from switchyard.registry.refs import AdapterName
from switchyard.registry.store import Registry

pytestmark = on_both
DATA = ["sha256:" + digit * 64 for digit in "123"]
NAMES = ["team/ner", "team/ner-de", "team/qa", "other/ner", "b/x_ner"]
TAGS = [{}, {"task": "ner"}, {"task": "NER", "lang": "de"}, {"task": 'a "b" % _\\', "lang": ""}, {"draft": "1"}]


@pytest.fixture
def corpus(registry: Registry, base: BaseModelSpec, tmp_path: Path) -> list[VersionRecord]:
    """Eighteen versions that differ in everything a query can ask for, the last published first."""
    parents: list[str] = []
    for number in range(18):
        rank, rslora, target = (4, 8, 16)[number % 3], number % 4 == 0, ("q_proj", "v_proj")[number % 2]
        source = write_adapter(
            tmp_path / f"corpus-{number}",
            tensors=lora_tensors(rank=rank, targets=(target,), seed=number),
            config=lora_config(r=rank, use_rslora=rslora, target_modules=[target]),
        )
        lineage = Lineage(
            dataset_digest=DATA[number % 3] if number % 5 else "",
            parents=tuple(parents[-1:]) if number % 2 else (),
            metrics=tuple(
                Metric(name, value, digest)
                for name, value, digest in (("f1", number / 20, ""), ("f1", 0.5, DATA[0]), ("exact match", 1.0, ""))[
                    : number % 4
                ]
            ),
        )
        done = registry.publish(
            AdapterName.parse(NAMES[number % 5]),
            source,
            base_digest=base.digest,
            publisher=("ann", "Ann Smith", "ci%bot")[number % 3],
            lineage=lineage,
            tags=TAGS[number % 5],
            set_alias=(None, "prod", "beta")[number % 3],
        )
        assert done.version is not None
        parents.append(done.version.digest)
    by_name = registry.list_versions(AdapterName("team", "qa"))[0]
    for record, state in zip(by_name, (VersionState.DEPRECATED, VersionState.QUARANTINED), strict=False):
        registry.states.move(record.name, record.version, state, actor="ann", reason="test")
    free = [v for v in registry.list_versions(AdapterName("team", "ner"))[0] if not v.aliases]
    registry.states.move(free[0].name, free[0].version, VersionState.DELETED, actor="ann", reason="test")
    return everything(registry)


def everything(registry: Registry) -> list[VersionRecord]:
    records = [
        record
        for name in NAMES
        for record in registry.list_versions(AdapterName.parse(name), include_deleted=True)[0]
    ]
    return sorted(records, key=lambda record: record.created_at_s, reverse=True)


def terms(base: str, parents: list[str]) -> st.SearchStrategy[str]:
    digests = st.sampled_from(DATA + parents[:3])
    operators, numbers = st.sampled_from(["<", "<=", "=", ">=", ">"]), st.sampled_from(["0.05", "0.5", "8", "1"])
    wild = st.sampled_from(["*", "ner", "ner*", "*ner", "*e*", "n*", "*-de", "_*", "x_*"])
    values = st.sampled_from(["ner", "NER", "n*", "*R", "*e*", '"a \\"b\\" % _\\\\"', "*%*", '"*"', ""])
    return st.one_of(
        wild,
        st.builds("{}/{}".format, st.sampled_from(["team", "*", "o*", "*m"]), wild),
        st.builds("tag:{}={}".format, st.sampled_from(["task", "lang", "draft"]), values),
        st.builds("tag:{}".format, st.sampled_from(["task", "lang", "never"])),
        st.builds("metric:{}{}{}".format, st.sampled_from(["f1", '"exact match"']), operators, numbers),
        st.builds("rank{}{}".format, operators, numbers),
        st.builds("alias:{}".format, st.sampled_from(["prod", "beta", "p*", "never"])),
        st.builds("state:{}".format, st.sampled_from(["ready", "deleted,ready", "quarantined", "DEPRECATED,yanked"])),
        st.builds("dataset:{}".format, digests),
        st.builds("parent:{}".format, digests),
        st.builds("publisher:{}".format, st.sampled_from(["ann", "Ann*", '"Ann Smith"', "*%*", "ANN"])),
        st.builds("namespace:{}".format, st.sampled_from(["team", "t*", "never"])),
        st.builds("feature:{}".format, st.sampled_from(["rslora", "lora", "rank_pattern"])),
        st.builds("target:{}".format, st.sampled_from(["q_proj", "v_proj", "proj"])),
        st.just(f"base:{base}"),
    )


@pytest.mark.parametrize("leaders", [1, 500], ids="{}_leaders".format)
def test_search_is_what_the_oracle_says(
    leaders: int,
    corpus: list[VersionRecord],
    registry: Registry,
    base: BaseModelSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With and without terms that lead; that choice must never change an answer."""
    monkeypatch.setattr(search_module, "_LEADERS", leaders)
    texts = st.lists(terms(base.digest, [record.digest for record in corpus]), max_size=3).map(" ".join)

    @settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
    @given(text=texts, limit=st.integers(1, 7))
    def check(text: str, limit: int) -> None:
        query = VersionQuery.parse(text)
        found, token, pages = [], "", 0
        while token or not pages:
            page, token = registry.search.versions(query, limit, token)
            assert len(page) == limit or not token
            found += page
            pages += 1
        assert found == [record for record in corpus if fits(record, query)]

    check()


def test_the_oracle_finds_something(corpus: list[VersionRecord]) -> None:
    """An oracle that always answers nothing would agree with a search that does the same."""
    for text, least in (("ner*", 5), ("tag:task=*e*", 3), ("metric:f1>=0.5", 3), ("alias:prod", 2), ("rank<=8", 8)):
        query = VersionQuery.parse(text)
        assert least <= sum(fits(record, query) for record in corpus) < len(corpus)


def test_aliases_are_in_every_answer(corpus: list[VersionRecord], registry: Registry) -> None:
    found, _ = registry.search.versions(VersionQuery.parse("alias:prod"))
    assert found
    assert all("prod" in record.aliases for record in found)


def test_limits_and_tokens(registry: Registry, adapter: Callable[[int], Path]) -> None:
    for limit in (0, 1001):
        with pytest.raises(ArgumentInvalid):
            registry.search.versions(VersionQuery(), limit)
    for token in ("x", "-1", "1" * 30):
        with pytest.raises(ArgumentInvalid):
            registry.search.versions(VersionQuery(), 10, token)
    assert registry.search.versions(VersionQuery()) == ([], "")
