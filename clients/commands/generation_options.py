"""The options of `generate`, and what they ask for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Never, TypeVar, cast

import typer

from switchyard.clients.asking import Asking
from switchyard.clients.targeting import COMPOSITION_METHODS

_T = TypeVar("_T")

First = Annotated[
    str, typer.Argument(metavar="REF", help="Adapter that answers; left out with --base and --compose.")
]
Second = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to continue; - reads standard input.", show_default=False),
]
Compose = Annotated[
    list[str] | None,
    typer.Option(metavar="REF=WEIGHT", help="Apply several adapters together; give it once per adapter."),
]
Method = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"How they become one: {', '.join(COMPOSITION_METHODS)}.", show_default=False),
]
Density = Annotated[
    float | None, typer.Option(help="Fraction of the values that the method keeps.", show_default=False)
]
MethodSeed = Annotated[int | None, typer.Option(help="Seed of the method's random choice.", show_default=False)]
MajoritySign = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How the method elects signs: total, frequency.", show_default=False),
]
SvdRank = Annotated[int | None, typer.Option(help="Rank of the result of svd.", show_default=False)]
Temperature = Annotated[float | None, typer.Option(help="0 takes the most probable token.", show_default=False)]
TopP = Annotated[float | None, typer.Option(help="Probability mass to keep.", show_default=False)]
TopK = Annotated[int | None, typer.Option(help="Tokens to keep; 0: all.", show_default=False)]
MinP = Annotated[
    float | None, typer.Option(help="Keep tokens this probable, against the most probable one.", show_default=False)
]
TypicalP = Annotated[
    float | None, typer.Option(help="Probability mass of the most typical tokens to keep.", show_default=False)
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1: tokens of prompt and answer get less probable.", show_default=False)
]
PresencePenalty = Annotated[
    float | None, typer.Option(help="Taken from tokens that the answer has.", show_default=False)
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Taken as often as the answer has a token.", show_default=False)
]
LogitBias = Annotated[
    list[str] | None, typer.Option(metavar="ID=VALUE", help="Add to the logit of a token; may be repeated.")
]
AllowToken = Annotated[list[int] | None, typer.Option(metavar="ID", help="Choose only this token; may be repeated.")]
BanToken = Annotated[list[int] | None, typer.Option(metavar="ID", help="Never choose this token; may be repeated.")]
Seed = Annotated[int | None, typer.Option(help="Makes the text reproducible.", show_default=False)]
Answers = Annotated[int | None, typer.Option("-n", "--answers", help="Answers to give.", show_default=False)]
BestOf = Annotated[int | None, typer.Option(help="Answers to make; the best are given.", show_default=False)]
Logprobs = Annotated[
    int | None,
    typer.Option(metavar="K", help="Show each token's logprob and the K most probable ones.", show_default=False),
]
PromptLogprobs = Annotated[
    int | None, typer.Option(metavar="K", help="The same for the tokens of the prompt.", show_default=False)
]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer.", show_default=False)]
MinTokens = Annotated[int | None, typer.Option(help="Do not end before this many tokens.", show_default=False)]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; may be repeated.")]
StopToken = Annotated[list[int] | None, typer.Option(metavar="ID", help="End with this token; may be repeated.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Go on past the end-of-sequence token.")]
JsonSchema = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Answer with JSON of the schema in this file.", show_default=False)
]
Regex = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Answer with text that matches this.", show_default=False)
]
Grammar = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Answer by the grammar in this file, in Lark's notation.", show_default=False),
]
Choice = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="Answer with one of these; give it once per text.")
]
Priority = Annotated[int | None, typer.Option(help="Higher goes first among your requests.", show_default=False)]
SessionKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The same key gets the same version of a split alias.", show_default=False),
]

_AS_THEY_ARE = (
    *("method", "density", "method_seed", "majority_sign", "svd_rank", "session_key"),
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "seed", "n", "best_of", "logprobs", "prompt_logprobs"),
    *("max_tokens", "min_tokens", "regex", "priority"),
)
"""Options that the client takes under the same name."""

_LISTS = {"allow_token": "allowed_token_ids", "ban_token": "banned_token_ids", "stop_token": "stop_token_ids"}


def asking_of(context: typer.Context, ref: str | None) -> Asking:
    """What the options of a call ask for; an option that was left out leaves it to the server.

    Args:
        context: of the command, with its options by name.
        ref: the adapter that answers; None when an option says who does.

    Raises:
        typer.BadParameter: an option cannot be read.
    """
    given = context.params
    asking: dict[str, object] = {name: given[name] for name in _AS_THEY_ARE if given[name] is not None}
    asking |= {name: list(given[option]) for option, name in _LISTS.items() if given[option]}
    asking |= {name: _content(context, given[name]) for name in ("json_schema", "grammar") if given[name]}
    asking["adapter"], asking["base"] = ref, given["base"]
    asking["stop"] = list(given["stop"] or ())
    if given["ignore_eos"]:
        asking["ignore_eos"] = True
    if given["compose"]:
        asking["composition"] = [_weighted(context, text) for text in given["compose"]]
    if given["logit_bias"]:
        asking["logit_bias"] = dict(_biased(context, text) for text in given["logit_bias"])
    if given["choice"]:
        asking["choices"] = list(given["choice"])
    return cast("Asking", asking)


def _content(context: typer.Context, path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}", ctx=context) from error


def _weighted(context: typer.Context, text: str) -> tuple[str, float]:
    return _pair(context, text, str, "--compose", "a ref and its weight, like ns/name@prod=0.7")


def _biased(context: typer.Context, text: str) -> tuple[int, float]:
    return _pair(context, text, int, "--logit-bias", "a token id and what to add, like 42=-1.5")


def _pair(
    context: typer.Context, text: str, left: Callable[[str], _T], option: str, expected: str
) -> tuple[_T, float]:
    match = re.fullmatch(r"([^=]+)=([^=]+)", text)
    try:
        return (left(match[1]), float(match[2])) if match else _refuse(context, text, option, expected)
    except ValueError:
        return _refuse(context, text, option, expected)


def _refuse(context: typer.Context, text: str, option: str, expected: str) -> Never:
    raise typer.BadParameter(f"found {text!r}, expected {expected}.", ctx=context, param_hint=option)
