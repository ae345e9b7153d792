"""The same prompts put to several adapters and the base, at the same time.

Owns who takes part and what they said. Names are resolved once, before the first prompt, so that an alias that moves
meanwhile does not change who is compared. Nothing is shown here.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from switchyard.clients.answers import Answer
from switchyard.clients.asking import Asking
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.errors import ClientError, Fault, NobodyToCompare
from switchyard.clients.prompts import Prompt

Heard = Callable[[int, str], None]
"""Takes the place of a contender and its text so far."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared.

    Attributes:
        asked: as the caller named it: a ref, or `base`.
        ref: the exact version that answers; None for the base model.
        label: what answers, with its digest, for people.
    """

    asked: str
    ref: str | None
    label: str

    def asking(self, common: Asking) -> Asking:
        """What a request to it asks for."""
        asking: Asking = {**common, "adapter": self.ref, "base": self.ref is None}
        return asking


@dataclass(frozen=True, slots=True)
class Said:
    """What one of them said to one prompt.

    Attributes:
        asked: who, as the caller named it.
        answer: the whole answer; None when there is none.
        reason: name of the failure; empty with an answer.
        message: what went wrong; empty with an answer.
        is_exact: whether the text is the expected one, outer white space apart; None when nobody knows.
    """

    asked: str
    answer: Answer | None
    reason: str
    message: str
    is_exact: bool | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One prompt with what everyone said to it, in the order of the contenders."""

    prompt: Prompt
    answers: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One contender over all prompts.

    Attributes:
        asked: who, as the caller named it.
        served: the version with its digest.
        answered: prompts with an answer.
        failed: prompts without one.
        exact: answers that are the expected text.
        expected: prompts whose right answer is known.
        as_first: answers with the text of the first contender's.
        tokens: tokens of all answers.
        time_to_first_token_s: median over the answers; 0 without one.
    """

    asked: str
    served: str
    answered: int
    failed: int
    exact: int
    expected: int
    as_first: int
    tokens: int
    time_to_first_token_s: float


async def settle(
    client: AsyncInferenceClient, refs: Sequence[str], *, base: bool, first: Prompt, common: Asking
) -> tuple[Contender, ...]:
    """Finds out who answers, by asking everyone for one token; adapters are loaded by it.

    Args:
        client: asks the server.
        refs: adapters as the caller named them.
        base: whether the base model takes part, before all others.
        first: what is asked.
        common: what every request asks for.

    Raises:
        NobodyToCompare: some do not answer; says of each why.
        Unreachable: there is no server.
    """
    wanted = [Contender("base", None, "")] * base + [Contender(ref, ref, "") for ref in refs]
    one_token: Asking = {**common, "max_tokens": 1}
    found = await asyncio.gather(
        *(client.generate(first.text, **one.asking(one_token)) for one in wanted), return_exceptions=True
    )
    faults, settled = [], []
    for one, answer in zip(wanted, found, strict=True):
        if isinstance(answer, Answer):
            exact = answer.served_by.adapters[0].ref if answer.served_by.adapters else None
            settled.append(replace(one, ref=exact, label=answer.served_by.label))
        elif isinstance(answer, ClientError):
            if answer.exit_status != ClientError.exit_status:
                raise answer
            faults.append(Fault(one.asked, answer.reason, str(answer)))
        else:
            raise answer
    if faults:
        raise NobodyToCompare(
            f"{len(faults)} of {len(wanted)} do not answer to the prompt of line {first.line}:", faults=tuple(faults)
        )
    return tuple(settled)


async def ask_all(
    client: AsyncInferenceClient, contenders: Sequence[Contender], prompt: Prompt, common: Asking, heard: Heard
) -> Compared:
    """Puts one prompt to everyone at the same time; a failure is what its contender said.

    Args:
        client: asks the server.
        contenders: who is asked.
        prompt: what.
        common: what every request asks for.
        heard: hears of each piece of text as it comes.
    """
    asked = (_ask(client, one, place, prompt, common, heard) for place, one in enumerate(contenders))
    return Compared(prompt, tuple(await asyncio.gather(*asked)))


async def _ask(
    client: AsyncInferenceClient, one: Contender, place: int, prompt: Prompt, common: Asking, heard: Heard
) -> Said:
    try:
        async with await client.stream(prompt.text, **one.asking(common)) as stream:
            async for _ in stream:
                heard(place, stream.text)
            answer = stream.answer
    except ClientError as error:
        return Said(one.asked, None, error.reason, str(error), None)
    is_exact = None if prompt.expected is None else answer.text.strip() == prompt.expected.strip()
    return Said(one.asked, answer, "", "", is_exact)


def standings(contenders: Sequence[Contender], rows: Sequence[Compared]) -> tuple[Standing, ...]:
    """Sums up what everyone said, in the order of the contenders."""
    return tuple(_standing(one, place, rows) for place, one in enumerate(contenders))


def _standing(one: Contender, place: int, rows: Sequence[Compared]) -> Standing:
    said = [row.answers[place] for row in rows]
    answers = [each.answer for each in said if each.answer is not None]
    firsts = [row.answers[0].answer for row in rows]
    return Standing(
        asked=one.asked,
        served=one.label,
        answered=len(answers),
        failed=len(said) - len(answers),
        exact=sum(each.is_exact is True for each in said),
        expected=sum(row.prompt.expected is not None for row in rows),
        as_first=sum(
            each.answer is not None and first is not None and each.answer.text == first.text
            for each, first in zip(said, firsts, strict=True)
        ),
        tokens=sum(answer.usage.completion_tokens for answer in answers),
        time_to_first_token_s=statistics.median([answer.timing.time_to_first_token_s for answer in answers] or [0]),
    )
