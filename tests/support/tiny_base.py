"""The tiny base: a random causal language model that the tests can make in a second.

Owns its shapes and its tokenizer. Every linear layer has out_features a multiple of 32 and in_features a
multiple of 64, which is what bitsandbytes' CPU kernel takes. Weights are drawn with a standard deviation
of 0.1 instead of the usual 0.02, so that logits differ enough for a parity test to fail.

The tokenizer has one token per byte and no merges: any text is legal, `len(text.encode())` is the number of
tokens, and ids never depend on a training corpus.

    bytes 0..255 -> ids 4..259   |   0 <pad>, 1 <s>, 2 </s>, 3 <unk>
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

SPECIALS: Final = ("<pad>", "<s>", "</s>", "<unk>")
BYTE_OFFSET: Final = len(SPECIALS)
VOCAB_SIZE: Final = 288
"""Ids in use are 0..259; rounded up to a multiple of 32."""

HIDDEN_SIZE: Final = 64
LAYERS: Final = 2
CONTEXT_TOKENS: Final = 512

_LLAMA_LIKE: Final = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "tie_word_embeddings": True,
}
_PLAIN: Final = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT_TOKENS,
}
_ARCHITECTURES: Final[dict[str, dict[str, Any]]] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE | {"sliding_window": None},
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE | {"head_dim": 16},
    "bloom": {"hidden_size": HIDDEN_SIZE, "n_layer": LAYERS, "n_head": 4},
    "gpt2": {"n_embd": HIDDEN_SIZE, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT_TOKENS},
    "gpt_neox": _PLAIN,
    "opt": _PLAIN | {"ffn_dim": 128, "word_embed_proj_dim": HIDDEN_SIZE},
    "gemma": _LLAMA_LIKE | {"head_dim": 16},
    "gemma2": _LLAMA_LIKE | {"head_dim": 16, "sliding_window": 32},
    "phi": _PLAIN,
    "phi3": _LLAMA_LIKE | {"tie_word_embeddings": False, "sliding_window": 32},
    "falcon": {"hidden_size": HIDDEN_SIZE, "num_hidden_layers": LAYERS, "num_attention_heads": 4},
    "mixtral": _LLAMA_LIKE | {"num_local_experts": 4, "sliding_window": None},
    "mamba": {"hidden_size": HIDDEN_SIZE, "num_hidden_layers": LAYERS, "state_size": 8},
    "openai-gpt": {"n_embd": HIDDEN_SIZE, "n_layer": LAYERS, "n_head": 4},
}
"""Configuration per `model_type` of transformers."""


def make_tiny_llama(directory: Path, *, seed: int = 0, architecture: str = "llama") -> Path:
    """Writes a base model with config, safetensors weights and tokenizer.

    The same seed gives the same bytes.

    Args:
        directory: Where to write; created when missing.
        seed: Seed of the random weights.
        architecture: A key of the table above.

    Returns:
        `directory`, with config.json, generation_config.json, model.safetensors (about 0.4 MB), tokenizer.json
        and tokenizer_config.json.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    directory.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=VOCAB_SIZE,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **_ARCHITECTURES[architecture],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    make_byte_tokenizer().save_pretrained(directory)
    return directory


def make_byte_tokenizer() -> Any:
    """Returns a fast tokenizer with one token per byte; adds `<s>` in front and nothing behind."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocab = {token: index for index, token in enumerate(SPECIALS)}
    for byte, character in bytes_to_unicode().items():
        vocab[character] = BYTE_OFFSET + byte
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT_TOKENS,
    )
