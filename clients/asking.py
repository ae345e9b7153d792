"""What an application may ask of a generation, and its message on the wire.

Shared by the synchronous and the asyncio client, so that both ask the same.
Values are not judged here: the server validates every field and reports all
faults at once. Only what the wire cannot carry is refused, two targets at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from switchyard.clients.errors import TargetInvalid
from switchyard.proto.inference.v1 import inference_pb2 as pb


class Asking(TypedDict, total=False):
    """Keyword arguments of `generate` and `stream`.

    Exactly one of `adapter`, `base` and `composition` is required; every other
    argument that is left out, or None, takes the server's default.
    """

    adapter: str | None
    """Ref of the adapter that answers, e.g. `ns/name@prod`, `ns/name:7`, `ns/name@sha256:...`."""
    base: bool
    """True asks the base model, without any adapter."""
    composition: Sequence[tuple[str, float]] | None
    """Refs and weights of several adapters applied together (the weighted sum of their deltas)."""
    temperature: float | None
    """0 takes the most probable token; at most 100."""
    top_p: float | None
    """Keeps the smallest set of tokens with this probability mass, in (0, 1]."""
    top_k: int | None
    """Keeps this many tokens; 0 keeps all."""
    seed: int | None
    """Makes the text reproducible, whatever shares the batch."""
    max_tokens: int | None
    """Longest answer, in tokens."""
    stop: Sequence[str]
    """The text ends before the first of these."""
    ignore_eos: bool | None
    """Goes on past the end-of-sequence token."""
    request_id: str
    """Name of the request in the server's logs; the server makes one when empty."""
    deadline_s: float | None
    """Seconds that the whole call may take, retries included; None takes the client's default."""


def request_for(prompt: str | Sequence[int], asking: Asking) -> pb.GenerateRequest:
    """Makes the message for one generation.

    Args:
        prompt: text, or token ids that are taken as they are.
        asking: the keyword arguments of the call.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given.
    """
    request = pb.GenerateRequest(request_id=asking.get("request_id", ""))
    _set_target(request, asking)
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.prompt_tokens.ids.extend(prompt)
        request.prompt_tokens.SetInParent()
    request.sampling.CopyFrom(
        pb.SamplingParams(
            temperature=asking.get("temperature"),
            top_p=asking.get("top_p"),
            top_k=asking.get("top_k"),
            seed=asking.get("seed"),
        )
    )
    request.stopping.CopyFrom(
        pb.StoppingParams(
            max_tokens=asking.get("max_tokens"),
            stop=asking.get("stop", ()),
            ignore_eos=asking.get("ignore_eos"),
        )
    )
    return request


def _set_target(request: pb.GenerateRequest, asking: Asking) -> None:
    adapter, base, composition = (
        asking.get("adapter"),
        asking.get("base", False),
        asking.get("composition"),
    )
    given = [
        name
        for name, present in (
            ("adapter", adapter is not None),
            ("base", base),
            ("composition", composition is not None),
        )
        if present
    ]
    if len(given) != 1:
        raise TargetInvalid(
            "who answers must be said, once: expected exactly one of adapter=REF, base=True and "
            f"composition=[(REF, WEIGHT), ...], found {' and '.join(given) or 'none of them'}."
        )
    if adapter is not None:
        request.adapter = adapter
    elif base:
        request.base.SetInParent()
    else:
        request.composition.method = pb.COMPOSITION_METHOD_SUM
        request.composition.adapters.extend(
            pb.WeightedAdapter(ref=ref, weight=weight) for ref, weight in composition or ()
        )
