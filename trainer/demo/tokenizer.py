"""The demo tokenizer: one token per known character, bytes for every other.

Owns the build of the tokenizer. There are no merges and no normalisation, so decoding returns exactly the
text that was encoded, whatever it is.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from switchyard.trainer.demo.alphabet import CHARACTERS, SPECIALS

PAD_ID: Final = 0
BOS_ID: Final = 1
EOS_ID: Final = 2

_BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
VOCABULARY: Final[dict[str, int]] = {token: index for index, token in enumerate((*SPECIALS, *_BYTES, *CHARACTERS))}
"""Token text to token id: specials, then the 256 bytes, then the alphabet."""

FIRST_CHARACTER_ID: Final = len(SPECIALS) + len(_BYTES)


def build(max_tokens: int) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of the demo base.

    Args:
        max_tokens: Context length of the model it belongs to, in tokens.
    """
    inner = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[], unk_token=SPECIALS[3], byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    pad, bos, eos, unk = SPECIALS
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def encode(text: str) -> list[int]:
    """Returns the ids of `text` without specials, as the built tokenizer gives them."""
    ids: list[int] = []
    for char in text:
        known = VOCABULARY.get(char)
        if known is not None:
            ids.append(known)
        else:
            ids.extend(len(SPECIALS) + byte for byte in char.encode())
    return ids
