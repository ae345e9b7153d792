"""How the base's weights are held: what is asked for, and what the files already are.

A checkpoint that is stored in 4 bits is what it is: it is loaded with its
own settings, and asking for others is an error, never a second rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from switchyard.registry.lineage import QuantizationSpec
from switchyard.server.errors import BaseUnreadable

AUTO = "auto"
"""What the files hold, or NF4 with double quantisation when they are not quantised."""

COMPUTE_DTYPE = "float32"
"""Activations on a CPU, whatever the weights are held in."""

METHODS = (AUTO, "nf4", "int8", "none")


@dataclass(frozen=True, slots=True)
class Quantization:
    """How to load the weights.

    Attributes:
        spec: what the resident weights are, as the server says it.
        stored: whether the files hold them that way already.
    """

    spec: QuantizationSpec
    stored: bool

    @property
    def method(self) -> str:
        """`nf4`, `int8` or `none`."""
        return self.spec.method

    def transformers_config(self, dtype: torch.dtype) -> BitsAndBytesConfig | None:
        """What transformers is told; None when nothing is left to quantise.

        Args:
            dtype: dtype of the weights that stay unquantised.
        """
        if self.stored or self.method == "none":
            return None
        if self.method == "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )


def choose_quantization(config: PreTrainedConfig, asked: str) -> Quantization:
    """Settles how the weights are held.

    Args:
        config: of the base model.
        asked: one of `METHODS`.

    Raises:
        BaseUnreadable: the method is unknown, or is not that of a quantised checkpoint.
    """
    if asked not in METHODS:
        raise BaseUnreadable(f"quantisation {asked!r} is not supported; use one of {', '.join(METHODS)}")
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        method = "nf4" if asked == AUTO else asked
        return Quantization(QuantizationSpec(method, method == "nf4", COMPUTE_DTYPE), stored=False)
    spec = _stored_spec(stored if isinstance(stored, dict) else stored.to_dict())
    if asked not in {AUTO, spec.method}:
        raise BaseUnreadable(
            f"the files hold the weights as {spec.method}, and {asked} was asked for; leave the quantisation out, "
            "or give the directory of the original 16-bit model"
        )
    return Quantization(spec, stored=True)


def require_quantized(model: PreTrainedModel, quantization: Quantization) -> None:
    """Refuses a loaded model whose label would be a lie.

    Raises:
        BaseUnreadable: transformers quantised none of its layers, or another way than was settled.
    """
    layers = [module for module in model.modules() if isinstance(module, (Linear4bit, Linear8bitLt))]
    wanted = {"nf4": Linear4bit, "int8": Linear8bitLt}.get(quantization.method)
    if wanted is None and not layers:
        return
    if wanted is None or not layers or not all(isinstance(layer, wanted) for layer in layers):
        raise BaseUnreadable(
            f"transformers holds {len(layers)} layers of {type(model).__name__} in 4 or 8 bits where "
            f"{quantization.spec.label()} was wanted; serve this base with quantization none"
        )


def _stored_spec(stored: dict[str, object]) -> QuantizationSpec:
    """What a checkpoint says about itself in the `quantization_config` of its config.json."""
    method = stored.get("quant_method", "bitsandbytes")
    kind = "int8" if stored.get("load_in_8bit") else stored.get("bnb_4bit_quant_type", "fp4")
    kind = kind if method == "bitsandbytes" else method
    if kind != "nf4":
        raise BaseUnreadable(
            f"the files hold the weights as {kind}, which is not served; give a checkpoint that bitsandbytes stored "
            "in nf4, or the original 16-bit model"
        )
    return QuantizationSpec("nf4", stored.get("bnb_4bit_use_double_quant") is True, COMPUTE_DTYPE)
