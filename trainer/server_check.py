"""What a live server says to a recipe before an hour is spent on it.

Owns two questions. Would it answer with the adapter: its base, its quantisation, its largest rank, its memory.
And does it read prompts as the trainer does: sample rows are sent to its base, and the tokens that it reports for the
prompt are compared one by one with those that are trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from switchyard.registry.base_model import BaseModelSpec
from switchyard.trainer.base_model import describe, load_tokenizer, locate_base
from switchyard.trainer.errors import Fault
from switchyard.trainer.preflight import read_data
from switchyard.trainer.provenance import quantization_spec
from switchyard.trainer.quiet import quiet_libraries
from switchyard.trainer.recipe import Recipe
from switchyard.trainer.row_formats import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from switchyard.clients.admin import ServerInfo
    from switchyard.clients.inference import InferenceClient

SAMPLE_ROWS: Final = 16
"""Rows whose tokens are compared, spread evenly over the training split."""
_TEXT_CHARACTERS: Final = 400
"""Of a row of plain text, so much from its beginning."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an adapter asks of a server.

    Attributes:
        base_digest: Identity of its base.
        quantization: How the base is stored while training, e.g. `nf4+double/float32`.
        rank: Its largest rank; 0 where it has none.
        context_tokens: The longest row that it is trained on.
        file_bytes: Size of its weights; None when it is not known yet.
    """

    base_digest: str
    quantization: str
    rank: int
    context_tokens: int
    file_bytes: int | None


@dataclass(frozen=True, slots=True)
class TokenDifference:
    """A prompt that the server reads as other tokens.

    Attributes:
        row: Number of the row in the training split, from 0.
        place: The first token that differs, from 0.
        trained: What the trainer has there, as text; empty past the end.
        served: What the server has there, as text; empty past the end.
    """

    row: int
    place: int
    trained: str
    served: str

    def __str__(self) -> str:
        return f"row {self.row}, token {self.place}: trained on {self.trained!r}, the server reads {self.served!r}"


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server said.

    Attributes:
        address: Where it is.
        faults: Why it would not answer with the adapter.
        warnings: What else is worth knowing, one sentence each.
        compared: Rows whose tokens were compared.
        differences: Those that the server reads otherwise.
    """

    address: str
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    compared: int
    differences: tuple[TokenDifference, ...]

    def document(self) -> dict[str, object]:
        """Returns everything as a JSON document."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Everything that a person should read, faults first."""
        found = [f"{self.address} would not answer with this adapter: {fault}" for fault in self.faults]
        if self.differences:
            found.append(
                f"{self.address} reads {len(self.differences)} of {self.compared} prompts as other tokens than are "
                f"trained on; {self.differences[0]}. Control tokens in a text are plain text to a server: send "
                "such prompts as token ids"
            )
        return [*found, *self.warnings]


def check_server(recipe: Recipe, address: str, *, file_bytes: int | None = None) -> ServerReport:
    """Asks a server.

    Args:
        recipe: What would be trained.
        address: Of the server.
        file_bytes: Size of the adapter's weights, when it is known.

    Raises:
        ClientError: If the server does not answer.
        TrainerError: If data or base cannot be read.
    """
    from switchyard.clients.admin import AdminClient
    from switchyard.clients.errors import PermissionRefused, Unreachable, Unsupported
    from switchyard.clients.inference import InferenceClient

    directory = locate_base(recipe.base)
    spec = describe(directory, recipe.base)
    try:
        with AdminClient(address) as admin:
            info = admin.info()
    except (PermissionRefused, Unsupported) as error:
        said = f"{address} does not tell its limits ({error}); they were not compared"
        return ServerReport(address, (), (said,), 0, ())
    faults, warnings = judge(needs_of(recipe, spec, file_bytes), info)
    if info.base_digest != spec.digest:
        return ServerReport(address, tuple(faults), tuple(warnings), 0, ())
    with quiet_libraries():
        tokenizer = load_tokenizer(directory)
        rows = sample(read_data(recipe)["train"].rows)
        try:
            with InferenceClient(address) as client:
                compared, differences, skipped = compare_tokens(client, tokenizer, rows)
        except (PermissionRefused, Unreachable) as error:
            return ServerReport(
                address, tuple(faults), (*warnings, f"{address} did not answer to a prompt: {error}"), 0, ()
            )
    return ServerReport(address, tuple(faults), (*warnings, *skipped), compared, differences)


def needs_of(recipe: Recipe, spec: BaseModelSpec, file_bytes: int | None) -> Needs:
    """Returns what the adapter of a recipe asks of a server."""
    from switchyard.trainer.adapter_shape import adapter_shape

    shape = adapter_shape(recipe, spec)
    # Some methods have no rank, and some give single modules another one.
    ranks = [getattr(shape, "r", None) or 0, *(getattr(shape, "rank_pattern", None) or {}).values()]
    # What moved into the factors is taken out again by as many factors.
    rank = 2 * max(ranks) if recipe.lora.init.changes_base else max(ranks)
    label = quantization_spec(recipe.quantization).label()
    return Needs(spec.digest, label, rank, recipe.train.max_length, file_bytes)


def judge(needs: Needs, info: ServerInfo) -> tuple[list[Fault], list[str]]:
    """Compares what an adapter asks with what a server has; returns faults and warnings."""
    faults, warnings = [], []
    if needs.base_digest != info.base_digest:
        faults.append(Fault("base", f"is {needs.base_digest}; the server has {info.base_name} ({info.base_digest})"))
    # The arithmetic's type changes the last bits only; the weights' type changes the answers.
    if needs.quantization.partition("/")[0] != info.quantization.partition("/")[0]:
        faults.append(Fault("quantization", f"is {needs.quantization}; the server's base is {info.quantization}"))
    if needs.rank > info.max_rank:
        faults.append(Fault("lora.r", f"is {needs.rank}; the server takes ranks up to {info.max_rank}"))
    if needs.file_bytes is not None and needs.file_bytes > info.host_cache_bytes:
        faults.append(
            Fault(
                "lora", f"gives {needs.file_bytes:,} bytes; the server has {info.host_cache_bytes:,} for all adapters"
            )
        )
    if needs.context_tokens > info.max_context_tokens:
        warnings.append(
            f"rows have up to {needs.context_tokens:,} tokens; the server takes {info.max_context_tokens:,} for "
            "prompt and answer together"
        )
    return faults, warnings


def sample(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Returns up to `SAMPLE_ROWS` rows with their numbers, spread evenly, first and last among them."""
    count = min(SAMPLE_ROWS, len(rows))
    places = [round(index * (len(rows) - 1) / max(1, count - 1)) for index in range(count)]
    return [(place, rows[place]) for place in places]


def compare_tokens(
    client: InferenceClient, tokenizer: PreTrainedTokenizerBase, rows: Sequence[tuple[int, Row]]
) -> tuple[int, tuple[TokenDifference, ...], tuple[str, ...]]:
    """Compares the tokens of prompts with those that a server reads.

    Args:
        client: Asks the server's base for the tokens of a prompt.
        tokenizer: The trainer's.
        rows: Rows with their numbers.

    Returns:
        How many were compared, those that differ, and what was left out.
    """
    from switchyard.clients.errors import RequestInvalid

    compared, differences, refused = 0, [], []
    for number, row in rows:
        text, trained = rendered(row, tokenizer)
        try:
            answer = client.generate(text, base=True, max_tokens=1, temperature=0.0, prompt_logprobs=0)
        except RequestInvalid as error:
            refused.append(f"the server refuses the prompt of row {number}: {error}")
            continue
        compared += 1
        # A server has no logprob for the first token, which nothing predicts.
        served = [*trained[:1], *(one.token_id for one in answer.prompt_logprobs)][: answer.usage.prompt_tokens]
        if served != trained:
            differences.append(_difference(number, trained, served, tokenizer))
    return compared, tuple(differences), tuple(refused)


def rendered(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """Returns a prompt as text, and the tokens that the trainer makes of it."""
    if not isinstance(row.prompt, str):
        turns = row.document()["prompt"]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        return str(text), list(ids)
    # Plain text has no prompt; its beginning tells as much.
    text = row.prompt or str(row.completion)[:_TEXT_CHARACTERS]
    return text, list(tokenizer(text=text)["input_ids"])


def _difference(
    number: int, trained: Sequence[int], served: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> TokenDifference:
    shared = min(len(trained), len(served))
    place = next((index for index in range(shared) if trained[index] != served[index]), shared)
    shown = [tokenizer.decode([ids[place]]) if place < len(ids) else "" for ids in (trained, served)]
    return TokenDifference(number, place, *shown)
