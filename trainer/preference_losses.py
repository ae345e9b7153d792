"""Losses over preferences that TRL's trainers do not have as they are needed here.

Owns ORPO on TRL's preference trainer (TRL's own is experimental, counts the prompt in the loss, and gives prompts a
beginning-of-text token that a server would not), and the token accuracy that TRL's KTO does not report.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from trl import DPOTrainer, KTOTrainer
from trl.trainer.utils import add_fused_lm_head


def odds_ratio(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Returns the log of how the odds of two answers compare, [N].

    Hong et al., "ORPO", 2024, equations 4 and 7: odds(p) = p / (1 - p), of the mean probability of a token.

    Args:
        chosen: Mean log probability of a token of the better answer, [N], below 0.
        rejected: The same of the worse one, [N].
    """
    return (chosen - rejected) - (_log_of_rest(chosen) - _log_of_rest(rejected))


def _log_of_rest(logps: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0; an answer that is certain would have infinite odds."""
    return torch.log1p(-logps.clamp(max=-1e-6).exp())


class OrpoTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's preference trainer with the loss of ORPO, which needs no reference."""

    def _compute_loss(
        self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], return_outputs: bool
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        counted = inputs["completion_mask"][:, 1:].bool()
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=labels,
            use_cache=False,
            fused_lm_head=True,
        )
        logps, right = outputs.log_probs[:, -counted.shape[1] :], outputs.is_top1[:, -counted.shape[1] :]
        chosen, rejected = ((logps * counted).sum(1) / counted.sum(1)).chunk(2)
        better = counted.chunk(2)[0]
        answer = -logps.chunk(2)[0][better].mean()
        loss = answer - self.beta * torch.nn.functional.logsigmoid(odds_ratio(chosen, rejected)).mean()
        mode = "train" if model.training else "eval"
        if model.training:
            self._total_train_tokens += int(inputs["attention_mask"].sum())
        figures = self._metrics[mode]
        figures["num_tokens"] = [self._total_train_tokens]
        figures["mean_token_accuracy"].append(float(right.chunk(2)[0][better].float().mean()))
        figures["rewards/accuracies"].append(float((chosen > rejected).float().mean()))
        figures["rewards/margins"].append(float(self.beta * (chosen - rejected).detach().mean()))
        return (loss, outputs) if return_outputs else loss


class CountingKtoTrainer(KTOTrainer):  # type: ignore[misc]
    """TRL's KTO, which also says how many tokens of the answers were the most likely ones."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        # TRL's own head leaves `is_top1` out; this one is asked before it.
        add_fused_lm_head(self.model.get_base_model(), outputs=("log_probs", "entropy", "mean_logits", "is_top1"))

    def _compute_loss(
        self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], return_outputs: bool
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        counted = inputs["completion_mask"][:, 1:].bool()
        seen: list[torch.Tensor] = []

        def look(_: torch.nn.Module, __: object, asked: Mapping[str, object], outputs: object) -> None:
            # The answers themselves are run first with the adapter; the same ids come again without it.
            if asked.get("input_ids") is not None and _same(asked["input_ids"], inputs["input_ids"]) and not seen:
                seen.append(outputs.is_top1[:, -counted.shape[1] :])  # type: ignore[attr-defined]

        hook = model.register_forward_hook(look, with_kwargs=True)
        try:
            loss = super()._compute_loss(model, inputs, return_outputs)
        finally:
            hook.remove()
        figures = self._metrics["train" if model.training else "eval"]
        figures["mean_token_accuracy"].append(float(seen[0][counted].float().mean()))
        return loss  # type: ignore[no-any-return]


def _same(one: object, other: torch.Tensor) -> bool:
    return isinstance(one, torch.Tensor) and one.data_ptr() == other.data_ptr()
