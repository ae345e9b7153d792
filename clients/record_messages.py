"""The registry's records, read from the wire and written to it."""

from __future__ import annotations

from typing import Protocol

from switchyard.clients.records import (
    AdapterSummary,
    Alias,
    AliasEvent,
    AliasEventKind,
    AliasMove,
    BaseModel,
    CanarySplit,
    Lineage,
    Metric,
    PublishedFile,
    Quantization,
    Resolved,
    Shape,
    Version,
    VersionState,
)
from switchyard.proto.registry.v1 import registry_pb2 as pb


class WireTimestamp(Protocol):
    """`google.protobuf.Timestamp`."""

    seconds: int
    nanos: int


def seconds_of(timestamp: WireTimestamp) -> float:
    """A wire timestamp as seconds since 1970 UTC."""
    return timestamp.seconds + timestamp.nanos / 1e9


def base_model_from(message: pb.BaseModel) -> BaseModel:
    """Reads a base model."""
    return BaseModel(
        digest=message.digest,
        name=message.name,
        config_digest=message.config_digest,
        weights_digest=message.weights_digest,
        tokenizer_digest=message.tokenizer_digest,
        chat_template_digest=message.chat_template_digest,
        architecture=message.architecture,
        vocab_size=message.vocab_size,
    )


def lineage_from(message: pb.Lineage) -> Lineage:
    """Reads a lineage."""
    trained = message.training_quantization
    return Lineage(
        dataset_digest=message.dataset_digest,
        recipe_digest=message.recipe_digest,
        code_commit=message.code_commit,
        training_quantization=Quantization(trained.method, trained.double_quantization, trained.compute_dtype)
        if message.HasField("training_quantization")
        else None,
        parents=tuple(message.parents),
        metrics=tuple(Metric(one.name, one.value, one.dataset_digest) for one in message.metrics),
        environment=dict(message.environment),
    )


def lineage_message(lineage: Lineage) -> pb.Lineage:
    """Makes the message of a lineage."""
    message = pb.Lineage(
        dataset_digest=lineage.dataset_digest,
        recipe_digest=lineage.recipe_digest,
        code_commit=lineage.code_commit,
        parents=lineage.parents,
        environment=lineage.environment or {},
    )
    for one in lineage.metrics:
        message.metrics.add(name=one.name, value=one.value, dataset_digest=one.dataset_digest)
    trained = lineage.training_quantization
    if trained is not None:
        message.training_quantization.CopyFrom(
            pb.Quantization(
                method=trained.method,
                double_quantization=trained.double_quantization,
                compute_dtype=trained.compute_dtype,
            )
        )
    return message


def version_from(message: pb.AdapterVersion) -> Version:
    """Reads a version."""
    shape = message.shape
    return Version(
        namespace=message.namespace,
        adapter=message.adapter,
        version=message.version,
        digest=message.digest,
        base_model=base_model_from(message.base_model),
        shape=Shape(
            rank=shape.rank,
            target_modules=tuple(shape.target_modules),
            features=tuple(shape.features),
            dtype=shape.dtype,
            parameter_count=shape.parameter_count,
            weights_bytes=shape.weights_bytes,
        ),
        lineage=lineage_from(message.lineage),
        files=tuple(PublishedFile(one.path, one.digest, one.size_bytes) for one in message.files),
        publisher=message.publisher,
        note=message.note,
        created_at_s=seconds_of(message.create_time),
        aliases=tuple(message.aliases),
        warnings=tuple(message.warnings),
        state=state_from(message.state),
        state_reason=message.state_reason,
        tags=dict(message.tags),
    )


def state_from(number: int) -> VersionState:
    """Reads the state of a version; a server that does not know of states has only usable ones."""
    if number == pb.VERSION_STATE_UNSPECIFIED:
        return VersionState.READY
    name = pb.VersionState.DESCRIPTOR.values_by_number.get(number)
    label = name.name.removeprefix("VERSION_STATE_").lower() if name is not None else ""
    return VersionState(label) if label in set(VersionState) else VersionState.UNKNOWN


def resolved_from(message: pb.ResolveResponse) -> Resolved:
    """Reads what a ref names."""
    return Resolved(version_from(message.version), message.alias, message.alias_generation, message.canary)


def alias_from(message: pb.Alias) -> Alias:
    """Reads an alias."""
    return Alias(
        namespace=message.namespace,
        adapter=message.adapter,
        name=message.name,
        version=message.version,
        digest=message.digest,
        generation=message.generation,
        updated_by=message.updated_by,
        updated_at_s=seconds_of(message.update_time),
        canary=CanarySplit(message.canary.version, message.canary.digest, message.canary.percent)
        if message.HasField("canary")
        else None,
    )


def alias_move_from(message: pb.AliasMove) -> AliasMove:
    """Reads an alias and where it pointed before."""
    return AliasMove(alias_from(message.alias), message.previous_version)


def alias_event_from(message: pb.AliasEvent) -> AliasEvent:
    """Reads one move of an alias."""
    return AliasEvent(
        generation=message.generation,
        from_version=message.from_version,
        to_version=message.to_version,
        actor=message.actor,
        reason=message.reason,
        created_at_s=seconds_of(message.create_time),
        kind=_kind_from(message.kind),
        canary_version=message.canary_version,
        canary_percent=message.canary_percent,
        evidence=message.evidence_json,
    )


def _kind_from(number: int) -> AliasEventKind:
    if number == pb.ALIAS_EVENT_KIND_UNSPECIFIED:
        return AliasEventKind.SET
    name = pb.AliasEventKind.DESCRIPTOR.values_by_number.get(number)
    label = name.name.removeprefix("ALIAS_EVENT_KIND_").lower() if name is not None else ""
    return AliasEventKind(label) if label in set(AliasEventKind) else AliasEventKind.UNKNOWN


def summary_from(message: pb.AdapterSummary) -> AdapterSummary:
    """Reads one line of a listing."""
    return AdapterSummary(
        namespace=message.namespace,
        adapter=message.adapter,
        latest_version=message.latest_version,
        aliases=tuple(alias_from(one) for one in message.aliases),
        base_digest=message.base_digest,
        updated_at_s=seconds_of(message.update_time),
        description=message.description,
        owner=message.owner,
        tags=dict(message.tags),
    )
