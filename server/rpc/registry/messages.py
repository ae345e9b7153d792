"""The registry: its records to protobuf messages, and what callers send to records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from switchyard.proto.registry.v1 import registry_pb2
from switchyard.registry.base_model import BaseModelSpec
from switchyard.registry.digest import canonical_json
from switchyard.registry.index.schema import AliasEventKind, VersionState
from switchyard.registry.lineage import Lineage, Metric, QuantizationSpec
from switchyard.registry.manifest import FileEntry
from switchyard.registry.records import (
    AdapterShape,
    AdapterSummary,
    AliasEvent,
    AliasMove,
    AliasRecord,
    VersionRecord,
)
from switchyard.registry.strict_json import Json

_STATES: Final = {state: registry_pb2.VersionState.Value(f"VERSION_STATE_{state.name}") for state in VersionState}
_ALIAS_EVENT_KINDS: Final = {
    kind: registry_pb2.AliasEventKind.Value(f"ALIAS_EVENT_KIND_{kind.name}") for kind in AliasEventKind
}


def lineage_of(message: registry_pb2.Lineage) -> Lineage:
    """The lineage that a publisher sent."""
    quantization = message.training_quantization
    return Lineage(
        dataset_digest=message.dataset_digest,
        recipe_digest=message.recipe_digest,
        code_commit=message.code_commit,
        training_quantization=QuantizationSpec(
            quantization.method, quantization.double_quantization, quantization.compute_dtype
        )
        if message.HasField("training_quantization")
        else None,
        parents=tuple(message.parents),
        metrics=tuple(Metric(m.name, m.value, m.dataset_digest) for m in message.metrics),
        environment=dict(message.environment),
    )


def file_of(message: registry_pb2.FileRef) -> FileEntry:
    """One file that a publisher announced."""
    return FileEntry(message.path, message.digest, message.size_bytes)


def version_message(record: VersionRecord) -> registry_pb2.AdapterVersion:
    """One committed version."""
    return registry_pb2.AdapterVersion(
        namespace=record.namespace,
        adapter=record.adapter,
        version=record.version,
        digest=record.digest,
        base_model=base_message(record.base),
        shape=_shape(record.shape),
        lineage=_lineage(record.lineage),
        files=[
            registry_pb2.FileRef(path=file.path, digest=file.digest, size_bytes=file.size_bytes)
            for file in record.files
        ],
        publisher=record.publisher,
        note=record.note,
        create_time=timestamp(record.created_at_s),
        aliases=record.aliases,
        warnings=record.warnings,
        state=_STATES[record.state],
        state_reason=record.state_reason,
        tags=record.tags,
    )


def base_message(base: BaseModelSpec) -> registry_pb2.BaseModel:
    """One base model."""
    return registry_pb2.BaseModel(
        digest=base.digest,
        name=base.name,
        config_digest=base.config_digest,
        weights_digest=base.weights_digest,
        tokenizer_digest=base.tokenizer_digest,
        chat_template_digest=base.chat_template_digest,
        architecture=base.architecture,
        vocab_size=base.vocab_size,
    )


def summary_message(summary: AdapterSummary) -> registry_pb2.AdapterSummary:
    """One adapter and where its aliases point."""
    return registry_pb2.AdapterSummary(
        namespace=summary.namespace,
        adapter=summary.adapter,
        latest_version=summary.latest_version,
        aliases=[alias_message(alias) for alias in summary.aliases],
        base_digest=summary.base_digest,
        update_time=timestamp(summary.updated_at_s),
        description=summary.description,
        owner=summary.owner,
        tags=summary.tags,
    )


def alias_message(alias: AliasRecord) -> registry_pb2.Alias:
    """Where an alias points."""
    return registry_pb2.Alias(
        namespace=alias.namespace,
        adapter=alias.adapter,
        name=alias.name,
        version=alias.version,
        digest=alias.digest,
        generation=alias.generation,
        updated_by=alias.updated_by,
        update_time=timestamp(alias.updated_at_s),
        canary=registry_pb2.CanarySplit(
            version=alias.canary.version, digest=alias.canary.digest, percent=alias.canary.percent
        )
        if alias.canary
        else None,
    )


def move_message(move: AliasMove) -> registry_pb2.AliasMove:
    """The outcome of moving an alias."""
    return registry_pb2.AliasMove(alias=alias_message(move.alias), previous_version=move.previous_version)


def alias_event_message(event: AliasEvent) -> registry_pb2.AliasEvent:
    """One move of an alias."""
    return registry_pb2.AliasEvent(
        generation=event.generation,
        from_version=event.from_version,
        to_version=event.to_version,
        actor=event.actor,
        reason=event.reason,
        create_time=timestamp(event.created_at_s),
        kind=_ALIAS_EVENT_KINDS[event.kind],
        canary_version=event.canary_version,
        canary_percent=event.canary_percent,
        evidence_json=json_text(event.evidence),
    )


def json_text(value: Mapping[str, Json]) -> str:
    """A JSON object as canonical text; an empty one is no text."""
    return canonical_json(dict(value)).decode() if value else ""


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch, to the microsecond."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1_000_000))
    return message


def _lineage(lineage: Lineage) -> registry_pb2.Lineage:
    message = registry_pb2.Lineage(
        dataset_digest=lineage.dataset_digest,
        recipe_digest=lineage.recipe_digest,
        code_commit=lineage.code_commit,
        parents=lineage.parents,
        metrics=[
            registry_pb2.Metric(name=m.name, value=m.value, dataset_digest=m.dataset_digest) for m in lineage.metrics
        ],
        environment=dict(lineage.environment),
    )
    quantization = lineage.training_quantization
    if quantization is not None:
        message.training_quantization.CopyFrom(
            registry_pb2.Quantization(
                method=quantization.method,
                double_quantization=quantization.double_quantization,
                compute_dtype=quantization.compute_dtype,
            )
        )
    return message


def _shape(shape: AdapterShape) -> registry_pb2.AdapterShape:
    return registry_pb2.AdapterShape(
        rank=shape.rank,
        target_modules=shape.target_modules,
        features=shape.features,
        dtype=shape.dtype,
        parameter_count=shape.parameter_count,
        weights_bytes=shape.weights_bytes,
    )
