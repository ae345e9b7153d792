"""A subject: the base model alone or with one adapter, asked greedily.

Owns generation and the surprise at right answers. An adapter is read from its files and not taken from the trainer's
memory, because the files are what is published; the base is loaded as it was for training.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from switchyard.trainer.base_model import load_base
from switchyard.trainer.gate.asked import Answer, Question
from switchyard.trainer.gate.golden import TOP, GoldenPrompt
from switchyard.trainer.recipe import BaseSection, QuantizationSection

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Subject:
    """Answers questions.

    Args:
        base: The base model.
        quantization: How it is quantised.
        adapter: Directory with the files of an adapter, or None for the base alone.
    """

    def __init__(self, base: BaseSection, quantization: QuantizationSection, adapter: Path | None) -> None:
        loaded = load_base(base, quantization)
        self._model: PreTrainedModel = loaded.model
        self._tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        if adapter is not None:
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(loaded.model, str(adapter))
        self._model.eval()
        self._inputs = frozenset(inspect.signature(loaded.model.forward).parameters)
        # A base may lack the token; what is padded is masked, so that another one does as well.
        pad_id = loaded.tokenizer.pad_token_id
        self._pad_id: int = loaded.eos_token_id if pad_id is None else pad_id
        ends = loaded.model.generation_config.eos_token_id
        self._ends = [loaded.eos_token_id, *(ends if isinstance(ends, list) else [ends or loaded.eos_token_id])]

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], *, max_new_tokens: int, batch_size: int) -> Iterator[Answer]:
        """Yields one answer for each question, in order.

        Args:
            questions: What is asked.
            max_new_tokens: Tokens after which an answer is cut off.
            batch_size: Questions that are asked at once.
        """
        for start in range(0, len(questions), batch_size):
            batch = questions[start : start + batch_size]
            said = self._generate([question.prompt_ids for question in batch], max_new_tokens)
            for question, tokens, nats in zip(batch, said, self._surprises(batch), strict=True):
                end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
                text = self._tokenizer.decode(tokens[:end], skip_special_tokens=True)
                yield Answer(str(text), end is not None, nats, len(question.expected_ids))

    @torch.inference_mode()
    def golden(self, questions: Sequence[Question], *, max_new_tokens: int) -> tuple[GoldenPrompt, ...]:
        """Returns what it says to each question, alone and without a cache, with the log probabilities behind it."""
        return tuple(self._golden(question, max_new_tokens) for question in questions)

    def _golden(self, question: Question, max_new_tokens: int) -> GoldenPrompt:
        said = self._generate([question.prompt_ids], max_new_tokens)[0]
        ids = (*question.prompt_ids, *said)
        logits = self._model(input_ids=torch.tensor([ids]).to(self._model.device), use_cache=False).logits[0]
        places = logits[len(question.prompt_ids) - 1 : -1].double().log_softmax(dim=-1).topk(TOP)
        top = [
            dict(zip(tokens, values, strict=True))
            for tokens, values in zip(places.indices.tolist(), places.values.tolist(), strict=True)
        ]
        return GoldenPrompt(ids, len(question.prompt_ids), tuple(top))

    def _generate(self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[list[int]]:
        tokens, mask = self._padded(prompts)
        # A config of its own: what a base suggests may sample, or punish repetition.
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self._ends,
            pad_token_id=self._pad_id,
            use_cache=True,
        )
        found = self._model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
        answers: list[list[int]] = found[:, tokens.shape[1] :].tolist()
        return answers

    def _surprises(self, batch: Sequence[Question]) -> list[float]:
        """Returns the summed negative log likelihood of each right answer, in nats."""
        tokens, mask = self._padded([question.prompt_ids + question.expected_ids for question in batch])
        longest = max(len(question.expected_ids) for question in batch)
        extra: dict[str, object] = {}
        if "position_ids" in self._inputs:
            extra["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        if "logits_to_keep" in self._inputs:
            extra["logits_to_keep"] = longest + 1
        logits = self._model(input_ids=tokens, attention_mask=mask, use_cache=False, **extra).logits
        surprise = torch.nn.functional.cross_entropy(
            logits[:, -longest - 1 : -1].float().transpose(1, 2), tokens[:, -longest:], reduction="none"
        )
        return [
            float(row[-len(question.expected_ids) :].double().sum())
            for row, question in zip(surprise, batch, strict=True)
        ]

    def _padded(self, rows: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (tokens, mask) of rows that all end in the last column, each int64 of shape (rows, longest)."""
        width = max(map(len, rows))
        tokens = torch.tensor([[self._pad_id] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return tokens.to(self._model.device), mask.to(self._model.device)
