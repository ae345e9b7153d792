"""What search and impact must answer, found the slow way: by looking at every record."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from switchyard.registry.catalog.query import Field, Operator, Term, VersionQuery
from switchyard.registry.index.schema import VersionState
from switchyard.registry.records import VersionRecord

COMPARE: Mapping[Operator, Callable[[float, float], bool]] = {
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.EQUAL: operator.eq,
    Operator.AT_LEAST: operator.ge,
    Operator.MORE: operator.gt,
}


def fits(record: VersionRecord, query: VersionQuery) -> bool:
    """Whether a version is what a query asks for."""
    gone = record.state in {VersionState.DELETED, VersionState.PURGED}
    return (query.names_states or not gone) and all(_holds(record, term) for term in query.terms)


def _holds(record: VersionRecord, term: Term) -> bool:
    compare = COMPARE[term.operator]
    if term.field is Field.NAME:
        namespace, adapter = term.patterns
        return namespace.matches(record.namespace) and adapter.matches(record.adapter)
    if term.field is Field.TAG:
        return term.key in record.tags and term.patterns[0].matches(record.tags[term.key])
    if term.field is Field.METRIC:
        return any(score.name == term.key and compare(score.value, term.number) for score in record.lineage.metrics)
    if term.field is Field.RANK:
        return compare(record.shape.rank, term.number)
    texts = {
        Field.NAMESPACE: (record.namespace,),
        Field.ALIAS: record.aliases,
        Field.STATE: (str(record.state),),
        Field.BASE: (record.base.digest,),
        Field.DATASET: (record.lineage.dataset_digest,),
        Field.PARENT: record.lineage.parents,
        Field.PUBLISHER: (record.publisher,),
        Field.FEATURE: record.shape.features,
        Field.TARGET: record.shape.target_modules,
    }[term.field]
    return any(pattern.matches(text) for pattern in term.patterns for text in texts)


def impact(records: Sequence[VersionRecord], digest: str) -> set[tuple[str, str, int]]:
    """Version, relation and distance of everything that a digest reached."""
    found: dict[str, tuple[str, int]] = {}
    reached, distance = {digest}, 1
    while reached:
        step = {}
        for record in records:
            name = f"{record.name}:{record.version}"
            lineage = record.lineage
            ways = {"parent": set(lineage.parents)}
            if distance == 1:
                ways["dataset"] = {lineage.dataset_digest}
                ways["recipe"] = {lineage.recipe_digest}
                ways["evaluation"] = {metric.dataset_digest for metric in lineage.metrics}
            relations = sorted(relation for relation, digests in ways.items() if digests & reached)
            if relations and name not in found:
                step[name] = (relations[0], distance, record.digest)
        found |= {name: (relation, far) for name, (relation, far, _) in step.items()}
        reached = {own for _, _, own in step.values()}
        distance += 1
    return {(name, relation, far) for name, (relation, far) in found.items()}
