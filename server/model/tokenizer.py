"""Text to token ids and back, with the base model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from llguidance import LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from switchyard.registry.strict_json import Json
from switchyard.server.chat.origin import Segment
from switchyard.server.errors import StructureInvalid


class BaseTokenizer:
    """The tokenizer of the base model; safe to use from several threads.

    User text never becomes a control token: the spelling of one is encoded like
    any other text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, extra_eos: frozenset[int], embedded: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = len(tokenizer) if embedded is None else min(len(tokenizer), embedded)
        own = tokenizer.eos_token_id
        eos = extra_eos | (frozenset() if own is None else frozenset({int(own)}))
        # Logprobs name the same tokens over and over; the vocabulary bounds what is kept.
        self._text_of = lru_cache(maxsize=self._vocab_size)(self._decode_one)
        added = tokenizer.added_tokens_decoder.values()
        self._control = tuple(sorted({str(token.content) for token in added if token.special}))
        self._eos = frozenset(token for token in eos if token < self._vocab_size)

    def __reduce__(self) -> tuple[object, ...]:
        """Crosses to other processes without what it remembers."""
        return BaseTokenizer, (self._tokenizer, self._eos, self._vocab_size)

    @classmethod
    def load(
        cls, directory: Path, extra_eos: frozenset[int] = frozenset(), embedded: int | None = None
    ) -> BaseTokenizer:
        """Reads the tokenizer files of a base model directory.

        Args:
            directory: where the base model lies.
            extra_eos: tokens beyond the tokenizer's own that end an answer.
            embedded: tokens that the model has an embedding for; a tokenizer may know more. None for all.
        """
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return cls(tokenizer, extra_eos, embedded)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._eos

    @property
    def vocab_size(self) -> int:
        """Token ids are below this: the tokenizer knows them and the model has an embedding for them."""
        return self._vocab_size

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, with the tokens that the base wants in front of it."""
        return tuple(self._tokenizer(text, split_special_tokens=True)["input_ids"])

    @property
    def chat_template(self) -> str:
        """The chat template that came with the base; of several the one for every purpose. Empty without one."""
        found = self._tokenizer.chat_template
        if isinstance(found, dict):
            found = found.get("default")
        return found or ""

    @property
    def template_variables(self) -> dict[str, Json]:
        """What chat templates may name beside the conversation: control tokens such as `bos_token`."""
        return {
            name: str(token) for name, token in self._tokenizer.special_tokens_map.items() if isinstance(token, str)
        }

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """How all control tokens are spelled."""
        return self._control

    def encode_parts(self, parts: Sequence[Segment]) -> tuple[int, ...]:
        """Token ids of a prompt that is complete: no token is put in front."""
        ids: list[int] = []
        for part in parts:
            plain = not part.has_control
            ids += self._tokenizer(part.text, add_special_tokens=False, split_special_tokens=plain)["input_ids"]
        return tuple(ids)

    def text_of(self, token_id: int) -> str:
        """Text of one token alone; control tokens by their names."""
        return self._text_of(token_id)

    def _decode_one(self, token_id: int) -> str:
        text: str = self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return text

    def grammar_view(self) -> LLTokenizer:
        """What compiling structures needs to know: the bytes of every token, and which of them end an answer.

        Raises:
            StructureInvalid: the tokens are not spelled in bytes, or none ends an answer.
        """
        if not self._eos:
            raise StructureInvalid("this base has no end-of-sequence token, so no structure can be kept to")
        try:
            return from_tokenizer(self._tokenizer, eos_token=sorted(self._eos))
        except ValueError as error:
            raise StructureInvalid(f"the tokens of this base do not say what they spell: {error}") from error

    def decode(self, token_ids: list[int]) -> str:
        """Text of the ids; control tokens have none, an incomplete character shows as U+FFFD."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
