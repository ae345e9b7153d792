"""Generation and operation: protobuf messages to domain values and back.

Dull on purpose: no decision is made here. A field that was not set stays None,
so that admission can tell `unset` from zero.
"""

from __future__ import annotations

from switchyard.proto.admin.v1 import admin_pb2
from switchyard.proto.inference.v1 import inference_pb2
from switchyard.server.adapters.composition import METHOD_SUM
from switchyard.server.adapters.residency import AdapterState, AdapterStatus
from switchyard.server.engine.types import (
    AdapterPart,
    EngineLoad,
    ErrorEvent,
    FinishedEvent,
    FinishReason,
    Timing,
    TokenEvent,
)
from switchyard.server.rpc.admission import Admitted, ServedBy
from switchyard.server.rpc.catalog import ServablePage
from switchyard.server.rpc.draft import (
    AdapterTarget,
    BaseTarget,
    CompositionTarget,
    RequestDraft,
    Target,
    WeightedRef,
)
from switchyard.server.rpc.status import cut, reason_of, status_of

_METHODS = {
    inference_pb2.COMPOSITION_METHOD_UNSPECIFIED: METHOD_SUM,
    inference_pb2.COMPOSITION_METHOD_SUM: METHOD_SUM,
}

FINISH_REASONS = {
    FinishReason.STOP: inference_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: inference_pb2.FINISH_REASON_LENGTH,
}

ADAPTER_STATES = {
    AdapterState.FETCHING: admin_pb2.ADAPTER_STATE_FETCHING,
    AdapterState.HOST: admin_pb2.ADAPTER_STATE_HOST,
    AdapterState.RESIDENT: admin_pb2.ADAPTER_STATE_RESIDENT,
    AdapterState.FAILED: admin_pb2.ADAPTER_STATE_FAILED,
}

_EVENT_MESSAGE_BYTES = 4096


def draft_of(message: inference_pb2.GenerateRequest) -> RequestDraft:
    """What the caller asked for."""
    source = message.WhichOneof("input")
    sampling, stopping = message.sampling, message.stopping
    return RequestDraft(
        target=_target(message),
        prompt=message.prompt if source == "prompt" else None,
        prompt_tokens=tuple(message.prompt_tokens.ids) if source == "prompt_tokens" else None,
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        top_k=sampling.top_k if sampling.HasField("top_k") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
        max_tokens=stopping.max_tokens if stopping.HasField("max_tokens") else None,
        stop=tuple(stopping.stop),
        ignore_eos=stopping.ignore_eos,
        request_id=message.request_id,
        session_key=message.session_key,
    )


def _target(message: inference_pb2.GenerateRequest) -> Target | None:
    kind = message.WhichOneof("target")
    if kind == "base":
        return BaseTarget()
    if kind == "adapter":
        return AdapterTarget(message.adapter)
    if kind == "composition":
        recipe = message.composition
        parts = tuple(WeightedRef(part.ref, part.weight) for part in recipe.adapters)
        return CompositionTarget(parts, _METHODS.get(recipe.method, f"number {int(recipe.method)}"))
    return None


def started_message(admitted: Admitted) -> inference_pb2.GenerateResponse:
    """The first message of a stream."""
    request = admitted.request
    return inference_pb2.GenerateResponse(
        started=inference_pb2.Started(
            request_id=request.request_id,
            served_by=served_by_message(admitted.served_by),
            prompt_tokens=len(request.prompt_tokens),
            seed=request.sampling.seed,
        )
    )


def chunk_message(event: TokenEvent) -> inference_pb2.GenerateResponse:
    """New output."""
    return inference_pb2.GenerateResponse(chunk=inference_pb2.Chunk(text=event.text, token_ids=event.token_ids))


def terminal_message(event: FinishedEvent | ErrorEvent, served_by: ServedBy) -> inference_pb2.GenerateResponse:
    """The one last message of a stream."""
    if isinstance(event, ErrorEvent):
        return inference_pb2.GenerateResponse(error=_error_message(event))
    return inference_pb2.GenerateResponse(
        finished=inference_pb2.Finished(
            reason=FINISH_REASONS[event.reason],
            usage=_usage(event),
            timing=_timing(event.timing),
            served_by=served_by_message(served_by),
            matched_stop=event.matched_stop,
        )
    )


def once_message(
    admitted: Admitted, text: str, token_ids: tuple[int, ...], event: FinishedEvent
) -> inference_pb2.GenerateOnceResponse:
    """A whole answer."""
    return inference_pb2.GenerateOnceResponse(
        request_id=admitted.request.request_id,
        text=text,
        token_ids=token_ids,
        reason=FINISH_REASONS[event.reason],
        usage=_usage(event),
        timing=_timing(event.timing),
        served_by=served_by_message(admitted.served_by),
        matched_stop=event.matched_stop,
        seed=admitted.request.sampling.seed,
    )


def served_by_message(served_by: ServedBy) -> inference_pb2.ServedBy:
    """Exactly what produces an answer."""
    return inference_pb2.ServedBy(
        adapters=[_served_adapter(part) for part in served_by.adapters],
        base_digest=served_by.base_digest,
        quantization=served_by.quantization,
        recipe_digest=served_by.recipe_digest,
    )


def servable_message(page: ServablePage) -> inference_pb2.ListServableResponse:
    """One page of what can be asked for."""
    return inference_pb2.ListServableResponse(
        base_name=page.base_name,
        base_digest=page.base_digest,
        quantization=page.quantization,
        adapters=[
            inference_pb2.Servable(
                namespace=row.version.namespace,
                adapter=row.version.adapter,
                version=row.version.version,
                digest=row.version.digest,
                aliases=row.version.aliases,
                resident=row.resident,
            )
            for row in page.adapters
        ],
        next_page_token=page.next_token,
    )


def _served_adapter(part: AdapterPart) -> inference_pb2.ServedAdapter:
    return inference_pb2.ServedAdapter(
        namespace=part.namespace,
        adapter=part.adapter,
        version=part.version,
        digest=part.digest,
        alias=part.alias,
        alias_generation=part.alias_generation,
        weight=part.weight,
        canary=part.canary,
    )


def _error_message(event: ErrorEvent) -> inference_pb2.GenerateError:
    return inference_pb2.GenerateError(
        code=status_of(event.error).code,
        reason=reason_of(event.error),
        message=cut(str(event.error), _EVENT_MESSAGE_BYTES),
        retryable=event.error.retryable,
        usage=_usage(event),
    )


def _usage(event: FinishedEvent | ErrorEvent) -> inference_pb2.Usage:
    return inference_pb2.Usage(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens)


def _timing(timing: Timing) -> inference_pb2.Timing:
    return inference_pb2.Timing(
        queue_s=timing.queue_s,
        adapter_wait_s=timing.adapter_wait_s,
        time_to_first_token_s=timing.time_to_first_token_s,
        decode_s=timing.decode_s,
    )


def adapter_status_message(status: AdapterStatus) -> admin_pb2.AdapterStatus:
    """One adapter in memory."""
    return admin_pb2.AdapterStatus(
        digest=status.key,
        state=ADAPTER_STATES[status.state],
        host_bytes=status.host_bytes,
        device_bytes=status.device_bytes,
        pins=status.pins,
        error_reason=status.error_reason,
        retry_after_s=status.retry_after_s,
    )


def load_message(load: EngineLoad, statuses: list[AdapterStatus], rss_bytes: int) -> admin_pb2.GetLoadResponse:
    """How busy the server is."""
    return admin_pb2.GetLoadResponse(
        waiting_requests=load.waiting_requests,
        running_sequences=load.running_sequences,
        kv_rows_used=load.kv_rows_used,
        kv_rows_total=load.kv_rows_total,
        adapters_resident=sum(status.state is AdapterState.RESIDENT for status in statuses),
        adapter_host_bytes=sum(status.host_bytes for status in statuses),
        adapter_device_bytes=sum(status.device_bytes for status in statuses),
        rss_bytes=rss_bytes,
        draining=load.draining,
    )
