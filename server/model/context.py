"""How many tokens a base can hold in one sequence."""

from __future__ import annotations

from transformers import PreTrainedConfig

_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_UNNAMED_LENGTH = 2048
"""For bases without any limit of their own (ALiBi): what BLOOM was trained on (arXiv:2211.05100, §3)."""

_GROWING_ROPE = frozenset({"dynamic", "longrope"})
"""Rotations that change once a sequence is longer than the base was trained for."""


def context_limit(config: PreTrainedConfig, wanted: int | None, *, windowed: bool) -> int:
    """Longest context that is served exactly, in tokens.

    Args:
        config: of the base model.
        wanted: what the operator allows; None for what the model allows.
        windowed: whether sliding-window attention is computed beyond its window.
    """
    text = config.get_text_config(decoder=True)
    named = [value for name in _LENGTHS if isinstance(value := getattr(text, name, None), int)]
    limits = [min(named, default=_UNNAMED_LENGTH), *_unrotated_limits(text)]
    window = getattr(text, "sliding_window", None)
    if not windowed and window is not None and getattr(text, "use_sliding_window", True):
        # Up to the window, sliding-window attention is plain causal attention.
        limits.append(int(window))
    if wanted is not None:
        limits.append(wanted)
    return min(limits)


def _unrotated_limits(config: PreTrainedConfig) -> list[int]:
    """Lengths up to which rotations stay as they are: keys in a cache cannot be turned again."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    growing = [kind for kind in kinds if kind.get("rope_type") in _GROWING_ROPE]
    return [int(kind.get("original_max_position_embeddings") or config.max_position_embeddings) for kind in growing]
