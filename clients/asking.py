"""What an application may ask of a generation, and its message on the wire.

Shared by the synchronous and the asyncio client, so that both ask the same.
Values are not judged here: the server validates every field and reports all
faults at once. Only what the wire cannot carry is refused, two targets at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from switchyard.clients.errors import StructureAmbiguous
from switchyard.clients.targeting import Targeting, set_target
from switchyard.proto.inference.v1 import inference_pb2 as pb


class Asking(Targeting, total=False):
    """Keyword arguments of `generate` and `stream`.

    An argument that is left out, or None, takes the server's default. What each
    one does and may be is in docs/generation.md.
    """

    temperature: float | None
    """0 takes the most probable token; at most 100."""
    top_p: float | None
    """Keeps the smallest set of tokens with this probability mass, in (0, 1]."""
    top_k: int | None
    """Keeps this many tokens; 0 keeps all."""
    min_p: float | None
    """Keeps tokens at least this probable, as a fraction of the most probable one."""
    typical_p: float | None
    """Keeps the most typical tokens with this probability mass, in (0, 1]."""
    repetition_penalty: float | None
    """Makes tokens of prompt and answer less probable; 1 changes nothing."""
    presence_penalty: float | None
    """Taken once from the logit of each token that the answer has."""
    frequency_penalty: float | None
    """Taken from a token's logit as often as the answer has it."""
    logit_bias: Mapping[int, float] | None
    """What to add to the logits of single tokens, by token id."""
    allowed_token_ids: Sequence[int]
    """Only these tokens are chosen."""
    banned_token_ids: Sequence[int]
    """These tokens are never chosen."""
    seed: int | None
    """Makes the text reproducible, whatever shares the batch."""
    n: int | None
    """Answers to give; all of them are in `Answer.choices`."""
    best_of: int | None
    """Answers to make, of which the `n` most probable are given."""
    logprobs: int | None
    """Reports the logprob of each token, and of this many of the most probable ones."""
    prompt_logprobs: int | None
    """The same for each token of the prompt after the first."""
    max_tokens: int | None
    """Longest answer, in tokens."""
    min_tokens: int | None
    """No token that ends the answer is chosen before this many others."""
    stop: Sequence[str]
    """The text ends before the first of these."""
    stop_token_ids: Sequence[int]
    """These tokens end the answer."""
    ignore_eos: bool | None
    """Goes on past the end-of-sequence token."""
    json_schema: str | Mapping[str, object] | None
    """The answer is a JSON value of this schema."""
    regex: str | None
    """The answer matches this regular expression."""
    grammar: str | None
    """The answer follows this grammar in Lark's notation."""
    choices: Sequence[str] | None
    """The answer is one of these."""


_SAMPLING: Final = tuple(field.name for field in pb.SamplingParams.DESCRIPTOR.fields)
_STOPPING: Final = tuple(field.name for field in pb.StoppingParams.DESCRIPTOR.fields)
_STRUCTURES: Final = ("json_schema", "regex", "grammar", "choices")


def request_for(prompt: str | Sequence[int], asking: Asking) -> pb.GenerateRequest:
    """Makes the message for one generation.

    Args:
        prompt: text, or token ids that are taken as they are.
        asking: the keyword arguments of the call.

    Raises:
        TargetInvalid: not exactly one of adapter, base and composition is given, or an unknown method.
        StructureAmbiguous: more than one structure is given.
    """
    request = pb.GenerateRequest()
    set_target(request, asking)
    set_prompt(request, prompt)
    set_generation(request, asking)
    return request


def set_prompt(request: pb.GenerateRequest | pb.ScoreRequest, prompt: str | Sequence[int]) -> None:
    """Writes a text, or token ids."""
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.prompt_tokens.ids.extend(prompt)
        request.prompt_tokens.SetInParent()


def set_generation(request: pb.GenerateRequest | pb.ChatRequest, asking: Asking) -> None:
    """Writes how tokens are chosen, when the answer ends and what it looks like.

    Raises:
        StructureAmbiguous: more than one structure is given.
    """
    request.sampling.CopyFrom(pb.SamplingParams(**_given(asking, _SAMPLING)))
    request.stopping.CopyFrom(pb.StoppingParams(**_given(asking, _STOPPING)))
    _set_structure(request, asking)


def _given(asking: Asking, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := asking.get(name)) is not None}


def _set_structure(request: pb.GenerateRequest | pb.ChatRequest, asking: Asking) -> None:
    given = _given(asking, _STRUCTURES)
    if len(given) > 1:
        raise StructureAmbiguous(
            f"an answer has one structure: expected one of {', '.join(_STRUCTURES)}, found {' and '.join(given)}."
        )
    if "choices" in given:
        request.structure.choices.texts.extend(given["choices"])
        request.structure.choices.SetInParent()
        return
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        setattr(request.structure, name, text)
