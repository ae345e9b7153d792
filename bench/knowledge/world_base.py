"""The base of the knowledge benchmark: a small Llama that has read of old yards, answers questions and follows one order.

Owns its tokenizer, its texts and its pre-training. Half of the old yards are asked about while it is trained, the other
half never: whether it answers about those says whether it can be asked about what it has only read.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import world
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from switchyard.trainer.demo.muon import Muon

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the base depends on.

    Attributes:
        old_yards: yards that it reads of.
        asked_yards: those among them that it is asked about while it is trained.
        steps: optimizer steps.
        batch: texts in a step.
        tokens: length of a text; documents follow one another in it.
        hidden: width.
        mlp: width of the feed-forward layer.
        layers: number of blocks.
        heads: attention heads.
        matrix_rate: peak learning rate of Muon.
        rate: peak learning rate of AdamW, for embeddings and norms.
        seed: of weights and texts.
    """

    old_yards: int = 180
    asked_yards: int = 120
    steps: int = 900
    batch: int = 16
    tokens: int = 128
    hidden: int = 128
    mlp: int = 256
    layers: int = 3
    heads: int = 4
    matrix_rate: float = 0.02
    rate: float = 4e-3
    seed: int = 7


def tokenizer() -> PreTrainedTokenizerFast:
    """Returns the tokenizer: one token per word or mark, two per name of a yard."""
    vocab = {token: index for index, token in enumerate([PAD, EOS, UNKNOWN, *world.vocabulary()])}
    inner = Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN)


def build(plan: Plan, vocab_size: int) -> LlamaForCausalLM:
    """Returns the untrained model."""
    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=math.ceil(vocab_size / 64) * 64,
        hidden_size=plan.hidden,
        intermediate_size=plan.mlp,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def texts(plan: Plan, seed: int) -> Iterator[str]:
    """Returns endless documents: paragraphs about old yards, questions with answers, and orders with what they want."""
    draw = random.Random(seed)  # noqa: S311 - a made-up world
    old = world.yards(plan.old_yards, plan.seed)
    while True:
        kind = draw.random()
        if kind < 0.55:
            yield world.told(draw.choice(old), draw)
        elif kind < 0.7:
            one = draw.choice(world.questions(draw.choice(old[: plan.asked_yards])))
            yield one.prompt + one.answer
        else:
            one = world.backwards(draw)
            yield one.prompt + one.answer


def batches(plan: Plan, words: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Returns endless batches, int64 of shape (batch, tokens), of documents with an end token behind each."""
    carried: list[int] = []
    size = plan.batch * plan.tokens
    for text in texts(plan, plan.seed):
        carried += [*words(text)["input_ids"], words.eos_token_id]
        if len(carried) >= size:
            yield torch.tensor(carried[:size]).view(plan.batch, plan.tokens)
            del carried[:size]


def pretrain(plan: Plan, out: Path, every: int = 100, show: Callable[[str], None] = print) -> None:
    """Makes the base in `out`."""
    words = tokenizer()
    model = build(plan, len(words)).train()
    embeddings = model.get_input_embeddings().weight
    matrices = [one for one in model.parameters() if one is not embeddings and one.ndim == 2]
    others = [one for one in model.parameters() if one is embeddings or one.ndim != 2]
    optimizers = [
        (Muon(matrices, plan.matrix_rate), plan.matrix_rate),
        (torch.optim.AdamW(others, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0), plan.rate),
    ]
    started, drawn = time.monotonic(), batches(plan, words)
    for step in range(plan.steps):
        scale = min(1.0, (step + 1) / 50) * max(0.01, 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
        for optimizer, rate in optimizers:
            optimizer.param_groups[0]["lr"] = rate * scale
        tokens = next(drawn)
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % every == 0 or step == plan.steps - 1:
            show(f"{time.monotonic() - started:5.0f} s  step {step:5d}  loss {float(loss.detach()):.3f}")
    model.save_pretrained(out)
    words.save_pretrained(out)
