"""Every bad request gets its status, its reason and a message that says what to do; nothing reaches the engine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import grpc
import pytest
from fake_engine import FakeEngine, echo
from rpc_harness import BASE, OTHER_BASE, QUANTIZATION, FakeClock, refusal_of, running, version

from switchyard.proto.inference.v1 import inference_pb2 as pb
from switchyard.registry.errors import StoreBusy
from switchyard.server.calls.quotas import Quota, Quotas
from switchyard.server.errors import Draining, EngineFailed, QueueFull

pytestmark = pytest.mark.asyncio

IA = grpc.StatusCode.INVALID_ARGUMENT
FP = grpc.StatusCode.FAILED_PRECONDITION
NF = grpc.StatusCode.NOT_FOUND

NF4_SINGLE = replace(QUANTIZATION, double_quantization=False)
BFLOAT16 = replace(QUANTIZATION, compute_dtype="bfloat16")
FP4 = replace(QUANTIZATION, method="fp4")
VERSIONS = (
    version("good"),
    version("large", rank=17),
    version("half", rank=9),
    version("foreign", base=OTHER_BASE),
    version("fp4", trained=FP4),
    version("single", trained=NF4_SINGLE),
    version("bfloat16", trained=BFLOAT16),
    version("unknown-training", trained=None),
)


def request(**fields: Any) -> pb.GenerateRequest:
    fields.setdefault("prompt", "hi")
    if not {"base", "adapter", "composition", "nobody"} & set(fields):
        fields["base"] = pb.BaseTarget()
    fields.pop("nobody", None)
    if "prompt_tokens" in fields:
        del fields["prompt"]
    return pb.GenerateRequest(**fields)


def recipe(*parts: tuple[str, float], method: int = 1, **fields: Any) -> pb.Composition:
    adapters = [pb.WeightedAdapter(ref=ref, weight=weight) for ref, weight in parts]
    return pb.Composition(adapters=adapters, method=method, **fields)  # type: ignore[arg-type]


def mix(*parts: tuple[str, float], method: int = 1, **fields: Any) -> pb.GenerateRequest:
    return request(composition=recipe(*parts, method=method, **fields))


def sampling(**fields: Any) -> pb.GenerateRequest:
    return request(sampling=pb.SamplingParams(**fields))


def stopping(**fields: Any) -> pb.GenerateRequest:
    return request(stopping=pb.StoppingParams(**fields))


CASES: list[tuple[str, pb.GenerateRequest, grpc.StatusCode, str, str]] = [
    ("unknown adapter", request(adapter="nobody@prod"), NF, "ADAPTER_NOT_FOUND", "publish it first"),
    ("wrong base", request(adapter="foreign:1"), FP, "BASE_MISMATCH", BASE.digest),
    ("other quantisation", request(adapter="fp4:1"), FP, "QUANTIZATION_MISMATCH", "fp4+double/float32"),
    ("without double", request(adapter="single:1"), FP, "QUANTIZATION_MISMATCH", "nf4/float32"),
    ("rank too large", request(adapter="large:1"), FP, "RANK_TOO_LARGE", "holds 16"),
    (
        "ranks sum too high",
        request(composition=recipe(("half:1", 1), ("good:1", 1))),
        FP,
        "RANK_TOO_LARGE",
        "rank 17",
    ),
    ("no selector", request(adapter="good"), IA, "REF_SYNTAX", "ns/name@alias"),
    ("path as a ref", request(adapter="../../etc/passwd@x"), IA, "REF_SYNTAX", "not a name"),
    ("nobody", request(nobody=True), IA, "TARGET_REQUIRED", "base, adapter or composition"),
    ("empty prompt", request(prompt=""), IA, "PROMPT_EMPTY", "empty"),
    ("no prompt", pb.GenerateRequest(base=pb.BaseTarget()), IA, "PROMPT_EMPTY", "prompt_tokens"),
    ("no ids", request(prompt_tokens=pb.TokenIds()), IA, "PROMPT_EMPTY", "at least one"),
    ("id out of range", request(prompt_tokens=pb.TokenIds(ids=[1, 260, 2**32 - 1])), IA, "TOKEN_ID", "2 of 3"),
    ("too many ids", request(prompt_tokens=pb.TokenIds(ids=[1] * 65)), IA, "CONTEXT_LENGTH", "65 tokens"),
    ("prompt too long", request(prompt="x" * 64), IA, "CONTEXT_LENGTH", "65 tokens"),
    (
        "prompt and answer",
        request(prompt="x" * 50, stopping=pb.StoppingParams(max_tokens=14)),
        IA,
        "CONTEXT_LENGTH",
        "51 tokens and max_tokens 14; the context of this server holds 64, so 13 are left",
    ),
    ("prompt not tokenised", request(prompt="x" * 1001), IA, "PROMPT_BYTES", "at most 1000"),
    ("negative temperature", sampling(temperature=-1), IA, "SAMPLING_RANGE", "-1 is not 0 or from 0.001 to 100"),
    ("temperature NaN", sampling(temperature=math.nan), IA, "SAMPLING_RANGE", "nan"),
    ("temperature infinite", sampling(temperature=math.inf), IA, "SAMPLING_RANGE", "inf"),
    ("temperature tiny", sampling(temperature=1e-45), IA, "SAMPLING_RANGE", "0.001"),
    ("temperature huge", sampling(temperature=1e9), IA, "SAMPLING_RANGE", "100"),
    ("top_p 0", sampling(top_p=0), IA, "SAMPLING_RANGE", "above 0"),
    ("top_p 1.1", sampling(top_p=1.1), IA, "SAMPLING_RANGE", "1.1 is not above 0 to 1"),
    ("top_p NaN", sampling(top_p=math.nan), IA, "SAMPLING_RANGE", "nan"),
    ("top_k negative", sampling(top_k=-5), IA, "SAMPLING_RANGE", "-5 is not from 0"),
    ("min_p", sampling(min_p=1.5), IA, "SAMPLING_RANGE", "from 0 to 1"),
    ("typical_p", sampling(typical_p=0), IA, "SAMPLING_RANGE", "above 0 to 1"),
    ("repetition_penalty", sampling(repetition_penalty=0), IA, "SAMPLING_RANGE", "above 0 to 10"),
    ("presence_penalty", sampling(presence_penalty=11), IA, "SAMPLING_RANGE", "from -10 to 10"),
    ("frequency_penalty", sampling(frequency_penalty=math.nan), IA, "SAMPLING_RANGE", "from -10 to 10"),
    ("bias", sampling(logit_bias={5: 101}), IA, "SAMPLING_RANGE", "101 is not from -100 to 100"),
    ("biased id", sampling(logit_bias={260: 1}), IA, "TOKEN_ID", "outside 0..259"),
    ("allowed id", sampling(allowed_token_ids=[260]), IA, "TOKEN_ID", "outside 0..259"),
    ("none left", sampling(allowed_token_ids=[7], banned_token_ids=[7, 8]), IA, "TOKEN_ID", "also banned"),
    ("n 17", sampling(n=17, temperature=1), IA, "LIMIT", "17 is not from 1 to 16"),
    ("greedy n", sampling(n=2), IA, "LIMIT", "set a temperature"),
    ("best_of below n", sampling(n=3, best_of=2, temperature=1), IA, "LIMIT", "cannot contain the 3 best"),
    ("logprobs 21", sampling(logprobs=21), IA, "LIMIT", "from 0 to 20"),
    ("prompt_logprobs -1", sampling(prompt_logprobs=-1), IA, "LIMIT", "from 0 to 20"),
    ("min over max", stopping(min_tokens=9, max_tokens=8), IA, "LIMIT", "from 0 to 8, max_tokens"),
    ("stop id", stopping(stop_token_ids=[260]), IA, "TOKEN_ID", "outside 0..259"),
    ("many stop ids", stopping(stop_token_ids=[1] * 65), IA, "LIMIT", "at most 64"),
    ("priority", request(priority=101), IA, "LIMIT", "from -100 to 100"),
    ("no structure", request(structure=pb.Structure()), IA, "STRUCTURE", "json_schema, regex, grammar and choices"),
    ("empty regex", request(structure=pb.Structure(regex="")), IA, "STRUCTURE", "0 bytes"),
    ("bad regex", request(structure=pb.Structure(regex="bad")), IA, "STRUCTURE_INVALID", "regex: bad"),
    (
        "same choice twice",
        request(structure=pb.Structure(choices=pb.Choices(texts=["a", "b", "a"]))),
        IA,
        "STRUCTURE",
        "the same as texts[0]",
    ),
    (
        "structure past its end",
        request(structure=pb.Structure(regex="a"), stopping=pb.StoppingParams(ignore_eos=True)),
        IA,
        "STRUCTURE",
        "leave ignore_eos out",
    ),
    ("max_tokens 0", stopping(max_tokens=0), IA, "LIMIT", "from 1 to 64"),
    ("max_tokens negative", stopping(max_tokens=-1), IA, "LIMIT", "from 1 to 64"),
    ("max_tokens huge", stopping(max_tokens=2**31 - 1), IA, "LIMIT", "from 1 to 64"),
    ("stop empty", stopping(stop=[""]), IA, "STOP", "1 to 256"),
    ("stop long", stopping(stop=["路" * 86]), IA, "STOP", "258 bytes"),
    ("many stops", stopping(stop=["x"] * 17), IA, "LIMIT", "at most 16"),
    ("request id", request(request_id="a\nb"), IA, "REQUEST_ID", "leave it empty"),
    ("long request id", request(request_id="a" * 129), IA, "REQUEST_ID", "1 to 128"),
    ("no parts", mix(), IA, "COMPOSITION", "0 adapters"),
    (
        "nine parts",
        request(composition=recipe(*((f"a{i}:1", 1.0) for i in range(9)))),
        IA,
        "COMPOSITION",
        "9 adapters",
    ),
    ("weight NaN", mix(("good:1", math.nan)), IA, "COMPOSITION", "nan"),
    ("weight infinite", mix(("good:1", -math.inf)), IA, "COMPOSITION", "-inf"),
    ("weight huge", mix(("good:1", 1e30)), IA, "COMPOSITION", "1000"),
    ("same ref twice", mix(("good:1", 1), ("good:1", 2)), IA, "COMPOSITION", "name it once"),
    (
        "same version twice",
        request(composition=recipe(("good:1", 1), ("good@x", 2))),
        IA,
        "COMPOSITION",
        "both default/good:1",
    ),
    ("unknown method", mix(("good:1", 1), method=99), IA, "COMPOSITION", "number 99"),
    ("a decomposition of one", mix(("good:1", 1), method=4), IA, "COMPOSITION", "needs two adapters or more"),
    ("ties without density", mix(("good:1", 1), ("half:1", 1), method=5), IA, "COMPOSITION", "needs a density"),
    ("a density for a sum", mix(("good:1", 1), density=0.5), IA, "COMPOSITION", "sum has no density"),
    ("unknown part", mix(("good:1", 1), ("nobody:1", 1)), NF, "ADAPTER_NOT_FOUND", "nobody"),
]


@pytest.mark.parametrize(
    ("message", "code", "reason", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_refused(message: pb.GenerateRequest, code: grpc.StatusCode, reason: str, says: str) -> None:
    async with running(None, *VERSIONS) as harness:
        harness.resolver.set_alias("good", "x", 1)
        once = await refusal_of(harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=message)))
        streamed = await refusal_of(harness.inference.Generate(message).read())
        metrics = harness.metrics.exposition()[0].decode()
    assert (once.code, once.reason, once.domain) == (code, reason, "switchyard")
    assert says in once.message
    assert once == streamed
    assert harness.engine.submitted == []
    assert f'switchyard_requests_refused_total{{reason="{reason}"}} 2.0' in metrics


async def test_all_faults_come_at_once() -> None:
    message = pb.GenerateRequest(
        composition=recipe(("good", math.nan), method=9),
        sampling=pb.SamplingParams(temperature=-1, top_p=2, top_k=-1),
        stopping=pb.StoppingParams(max_tokens=0, stop=["", "ok"]),
        request_id="\n",
    )
    async with running() as harness:
        refused = await refusal_of(harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=message)))
    assert (refused.code, refused.reason) == (IA, "FIELD_INVALID")
    assert [(field, reason) for field, reason, _ in refused.violations] == [
        ("composition.method", "COMPOSITION"),
        ("composition.adapters[0].ref", "REF_SYNTAX"),
        ("composition.adapters[0].weight", "COMPOSITION"),
        ("prompt", "PROMPT_EMPTY"),
        ("sampling.temperature", "SAMPLING_RANGE"),
        ("sampling.top_p", "SAMPLING_RANGE"),
        ("sampling.top_k", "SAMPLING_RANGE"),
        ("stopping.max_tokens", "LIMIT"),
        ("stopping.stop[0]", "STOP"),
        ("request_id", "REQUEST_ID"),
    ]
    assert harness.resolver.asked == []


@pytest.mark.parametrize("adapter", ["bfloat16", "unknown-training", "good"])
async def test_a_compute_dtype_or_unknown_training_is_no_mismatch(adapter: str) -> None:
    async with running(None, *VERSIONS) as harness:
        call = harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=request(adapter=f"{adapter}:1")))
        assert (await call).served_by.adapters[0].adapter == adapter


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QueueFull("300 requests are alive", retry_after_s=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Draining("stopping", retry_after_s=2.5), grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_overload_says_when_to_come_back(error: Any, code: grpc.StatusCode) -> None:
    engine = FakeEngine()
    engine.refusal = error
    async with running(engine) as harness:
        refused = await refusal_of(harness.inference.Generate(request()).read())
    assert (refused.code, refused.reason, refused.retry_after_s) == (code, error.reason, 2.5)
    assert refused.metadata["retryable"] == "true"


async def test_a_dead_engine_is_unavailable() -> None:
    engine = FakeEngine()
    engine.refusal = EngineFailed("the step loop has died")
    async with running(engine) as harness:
        refused = await refusal_of(harness.inference.Generate(request()).read())
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")


async def test_a_bug_shows_an_incident_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with running(None, *VERSIONS) as harness:

        async def broken(ref: object, session_key: str) -> Any:
            raise ZeroDivisionError("the secret prompt")

        harness.resolver.resolve = broken  # type: ignore[method-assign]
        with caplog.at_level("ERROR", "switchyard"):
            refused = await refusal_of(harness.inference.Generate(request(adapter="good:1")).read())
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.incident == refused.metadata["incident"]  # type: ignore[attr-defined]
    assert refused.metadata["incident"] in refused.message


async def test_a_registry_failure_keeps_its_reason() -> None:
    async with running(None, *VERSIONS) as harness:

        async def busy(ref: object, session_key: str) -> Any:
            raise StoreBusy("another process holds the lock")

        harness.resolver.resolve = busy  # type: ignore[method-assign]
        refused = await refusal_of(harness.inference.Generate(request(adapter="good:1")).read())
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "BUSY")


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x22\x02\xff\xfe"], ids=["truncated", "not UTF-8"])
async def test_bytes_that_are_no_message_are_the_callers_fault(payload: bytes) -> None:
    async with running() as harness:
        method = harness.channel.unary_unary("/switchyard.inference.v1.InferenceService/GenerateOnce")
        refused = await refusal_of(method(b"\x0a" + bytes([len(payload)]) + payload))
    assert (refused.code, refused.reason) == (IA, "ENCODING")


async def test_a_message_over_the_limit_is_refused_by_the_transport() -> None:
    async with running() as harness:
        refused = await refusal_of(harness.inference.Generate(request(prompt="x" * (5 << 20))).read())
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_prompts_and_answers_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with running(None, *VERSIONS) as harness:
        with caplog.at_level("DEBUG", "switchyard"):
            await harness.inference.GenerateOnce(pb.GenerateOnceRequest(request=request(prompt="canary-7f3")))
            await refusal_of(harness.inference.Generate(request(prompt="canary-7f3", adapter="no:1")).read())
    assert any(record.message == "call ended" for record in caplog.records)
    assert not any("canary" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(("adapter", "reason"), [(None, "TENANT_QUOTA"), ("good:1", "ADAPTER_QUOTA")])
async def test_a_quota_is_held_by_every_call_and_given_back(adapter: str | None, reason: str) -> None:
    quota, engine, clock = Quota(max_live=1), FakeEngine(None), FakeClock()
    limited = {"adapter_quota" if adapter else "tenant_quota": lambda _: quota}
    asked: dict[str, Any] = {"adapter": adapter} if adapter else {"base": pb.BaseTarget()}
    others: list[tuple[str, Any]] = [
        ("GenerateOnce", pb.GenerateOnceRequest(request=request(**asked))),
        ("Score", pb.ScoreRequest(prompt="hi", **asked)),
        ("Embed", pb.EmbedRequest(inputs=[pb.EmbedInput(text="a")], **asked)),
    ]
    async with running(engine, *VERSIONS, quotas=Quotas(clock, **limited)) as harness:
        first = harness.inference.Generate(request(**asked))
        await first.read()
        for method, message in others:
            refused = await refusal_of(getattr(harness.inference, method)(message))
            assert (refused.code, refused.reason, refused.retry_after_s) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                reason,
                1.0,
            )
        first.cancel()
        await engine.aborted_one()
        assert await harness.live.wait_idle(10)
        engine.script = echo
        for method, message in others[::2]:
            assert (await getattr(harness.inference, method)(message)).request_id
