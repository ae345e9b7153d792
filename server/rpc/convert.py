"""Answers and the server's state as protobuf messages.

Dull on purpose: no decision is made here.
"""

from __future__ import annotations

from collections.abc import Set

from switchyard.proto.admin.v1 import admin_pb2
from switchyard.proto.inference.v1 import inference_pb2
from switchyard.registry.errors import RegistryError
from switchyard.server.adapters.capacity import Capacity, Place
from switchyard.server.adapters.tiers import AdapterState, AdapterStatus
from switchyard.server.calls.admission import Admitted, ServedBy
from switchyard.server.calls.answers import Answers
from switchyard.server.calls.catalog import ServablePage
from switchyard.server.calls.codes import code_of, reason_of
from switchyard.server.engine.types import (
    AdapterPart,
    AdapterSelection,
    Choice,
    Digest,
    EngineLoad,
    ErrorEvent,
    FinishedEvent,
    FinishReason,
    Timing,
    TokenEvent,
)
from switchyard.server.errors import AdapterTooLarge, ServerError
from switchyard.server.rpc.logprob_messages import TextOf, logprob_messages
from switchyard.server.rpc.status import cut

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

PLACES = {
    Place.SLOT: admin_pb2.PLANNED_PLACE_SLOT,
    Place.HOST: admin_pb2.PLANNED_PLACE_HOST,
    Place.REGISTRY: admin_pb2.PLANNED_PLACE_REGISTRY,
    Place.NOWHERE: admin_pb2.PLANNED_PLACE_NOWHERE,
}

_EVENT_MESSAGE_BYTES = 4096


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


def chunk_message(event: TokenEvent, text_of: TextOf) -> inference_pb2.GenerateResponse:
    """New output."""
    return inference_pb2.GenerateResponse(
        chunk=inference_pb2.Chunk(
            text=event.text,
            token_ids=event.token_ids,
            index=event.index,
            logprobs=logprob_messages(event.logprobs, text_of),
            prompt_logprobs=logprob_messages(event.prompt_logprobs, text_of),
        )
    )


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
            choices=[_choice(choice) for choice in event.choices],
        )
    )


def once_message(
    admitted: Admitted, answers: Answers, event: FinishedEvent, text_of: TextOf
) -> inference_pb2.GenerateOnceResponse:
    """Every answer, whole."""
    first = answers.part(event.choices[0].index if event.choices else 0)
    return inference_pb2.GenerateOnceResponse(
        request_id=admitted.request.request_id,
        text=first.text,
        token_ids=first.token_ids,
        reason=FINISH_REASONS[event.reason],
        usage=_usage(event),
        timing=_timing(event.timing),
        served_by=served_by_message(admitted.served_by),
        matched_stop=event.matched_stop,
        seed=admitted.request.sampling.seed,
        logprobs=logprob_messages(first.logprobs, text_of),
        prompt_logprobs=logprob_messages(answers.prompt_logprobs, text_of),
        choices=[_whole_choice(choice, answers, text_of) for choice in event.choices],
    )


def score_message(
    admitted: Admitted, answers: Answers, event: FinishedEvent, text_of: TextOf
) -> inference_pb2.ScoreResponse:
    """A prompt's tokens and how probable they are."""
    return inference_pb2.ScoreResponse(
        request_id=admitted.request.request_id,
        tokens=logprob_messages(answers.prompt_logprobs, text_of),
        total_logprob=sum(one.logprob for one in answers.prompt_logprobs),
        usage=_usage(event),
        served_by=served_by_message(admitted.served_by),
    )


def _choice(choice: Choice) -> inference_pb2.Choice:
    return inference_pb2.Choice(
        index=choice.index,
        reason=FINISH_REASONS[choice.reason],
        matched_stop=choice.matched_stop,
        completion_tokens=choice.completion_tokens,
        cumulative_logprob=choice.cumulative_logprob,
    )


def _whole_choice(choice: Choice, answers: Answers, text_of: TextOf) -> inference_pb2.WholeChoice:
    part = answers.part(choice.index)
    return inference_pb2.WholeChoice(
        choice=_choice(choice),
        text=part.text,
        token_ids=part.token_ids,
        logprobs=logprob_messages(part.logprobs, text_of),
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
        code=code_of(event.error).number,
        reason=reason_of(event.error),
        message=cut(str(event.error), _EVENT_MESSAGE_BYTES),
        retryable=event.error.retryable,
        usage=_usage(event),
    )


def _usage(event: FinishedEvent | ErrorEvent) -> inference_pb2.Usage:
    cached = event.cached_prompt_tokens if isinstance(event, FinishedEvent) else 0
    return inference_pb2.Usage(
        prompt_tokens=event.prompt_tokens,
        completion_tokens=event.completion_tokens,
        cached_prompt_tokens=cached,
    )


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


def planned_message(
    ref: str, found: AdapterSelection | ServerError | RegistryError, planned: Capacity, in_memory: Set[Digest]
) -> admin_pb2.PlannedAdapter:
    """Where one adapter would be, or why it cannot be served."""
    if isinstance(found, Exception):
        return admin_pb2.PlannedAdapter(
            ref=ref,
            place=admin_pb2.PLANNED_PLACE_NOWHERE,
            error_reason=reason_of(found),
            message=cut(str(found), _EVENT_MESSAGE_BYTES),
        )
    place, size = planned.places[found.key], planned.sizes[found.key]
    message = admin_pb2.PlannedAdapter(
        ref=ref, digest=found.key, place=PLACES[place], size_bytes=size, in_memory=found.key in in_memory
    )
    if place is Place.NOWHERE:
        message.error_reason = AdapterTooLarge.reason
        message.message = f"it takes {size} bytes, more than all slots together may hold; raise adapter_bytes"
    return message


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
        kv_blocks_running=load.kv_blocks_running,
        kv_blocks_cached=load.kv_blocks_cached,
        kv_blocks_total=load.kv_blocks_total,
        waiting=[
            admin_pb2.Waiting(reason=reason.value, explanation=reason.words, sequences=count)
            for reason, count in load.waiting_for.items()
        ],
    )
