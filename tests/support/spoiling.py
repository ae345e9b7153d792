"""Ways to spoil a good adapter, for `hostile_files`."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251 - written here, never read
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from handmade import HIDDEN, LAYERS, lora_config, lora_tensors, raw_file, safetensors_file, tensor, zeros

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
STEM = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight"
PLANTED = ("megatron.evil", "planted_evil", "planted_auto")
"""Modules that would be importable while the files are checked, if anything imported what a file names."""

Spoil = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One hostile directory.

    Attributes:
        row: its row in the list.
        title: what is wrong.
        spoil: changes a good adapter directory.
        reason: what it is refused with; for one that is accepted, what it is warned of.
        is_accepted: whether it becomes a version.
    """

    row: int
    title: str
    spoil: Spoil
    reason: str
    is_accepted: bool = False

    @property
    def name(self) -> str:
        """Unique, and fit for a file name."""
        words = "".join(character if character.isalnum() else "-" for character in self.title.lower())
        return f"{self.row:02}-{words}"


def weights(content: bytes | Callable[[], bytes]) -> Spoil:
    """Puts other bytes in the place of the weights; a function makes large ones when they are needed."""
    return lambda directory: (directory / WEIGHTS).write_bytes(content() if callable(content) else content)


def extra(name: str, value: Any = None) -> Spoil:
    """One more tensor beside the good ones."""
    return lambda directory: (directory / WEIGHTS).write_bytes(
        safetensors_file(lora_tensors() | {name: value or zeros("F32", 4, 4)}, {"format": "pt"})
    )


def changed(**tensors: Any) -> Spoil:
    """Other values for factors `a` and `b` of the first module; None takes one out."""
    names = {{"a": A, "b": B}[key]: value for key, value in tensors.items()}
    kept = {name: value for name, value in (lora_tensors() | names).items() if value is not None}
    return weights(lambda: safetensors_file(kept))


def config(**changes: Any) -> Spoil:
    """Other fields in the configuration."""
    return lambda directory: (directory / CONFIG).write_text(json.dumps(lora_config(**changes)))


def text(content: str | bytes) -> Spoil:
    """Another configuration altogether."""
    data = content.encode() if isinstance(content, str) else content
    return lambda directory: (directory / CONFIG).write_bytes(data)


def kept_head(value: Any) -> Spoil:
    """A copy of the output head, as the configuration says."""
    return both(config(modules_to_save=["lm_head"]), extra("base_model.model.lm_head.weight", value))


def not_a_number(value: Any) -> Any:
    """The same tensor with a NaN in front."""
    dtype, shape, content = value
    return (dtype, shape, np.float32("nan").tobytes() + content[4:])


def ia3() -> Spoil:
    """The fields of LoRA under the other method's name."""
    return config(peft_type="IA3", feedforward_modules=[])


def beside(name: str, content: bytes | Callable[[], bytes] = b"x") -> Spoil:
    """One more file."""
    return lambda directory: (directory / name).write_bytes(content() if callable(content) else content)


def instead(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else in the place of a file."""

    def spoil(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return spoil


def both(first: Spoil, second: Spoil) -> Spoil:
    """Two things wrong."""
    return lambda directory: (first(directory), second(directory))


def header(document: Any, data_bytes: int = 4096) -> bytes:
    """A file with a header of one's own."""
    return raw_file(document if isinstance(document, str | bytes) else json.dumps(document), bytes(data_bytes))


def one(**fields: Any) -> dict[str, Any]:
    """The header of two tensors, with other fields for the first."""
    first = {"dtype": "F32", "shape": [8, HIDDEN], "data_offsets": [0, 2048]} | fields
    return {A: first, B: {"dtype": "F32", "shape": [HIDDEN, 8], "data_offsets": [2048, 4096]}}


class _Evil:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/switchyard-was-here",))


PICKLE = pickle.dumps(_Evil())


def bomb() -> bytes:
    """A quarter of a megabyte that inflates to 256 MiB, as a torch archive would."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(256 << 20))
    return packed.getvalue()


def archive() -> bytes:
    """An archive whose member climbs out of the directory."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../etc/cron.d/evil", "x")
    return packed.getvalue()


def many_tensors() -> bytes:
    """The header of a million and a half empty tensors, 87 MB of it."""
    names = (f'"{n:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(1_500_000))
    return raw_file("{" + ",".join(names) + "}")


def nonsense(length: int, size: int) -> bytes:
    return struct.pack("<Q", length) + bytes(size)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # Its name may be longer than a socket's address.
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def with_wide_rank() -> Spoil:
    return changed(a=zeros("F32", 8, HIDDEN), b=zeros("F32", HIDDEN, 4))


def spoiled_value(value: float) -> Spoil:
    values = np.full((8, HIDDEN), 0.1, "f4")
    values[3, 5] = value
    return changed(a=tensor(values))


def no_effect() -> Spoil:
    kept = {name: zeros("F32", *value[1]) if "lora_B" in name else value for name, value in lora_tensors().items()}
    return weights(lambda: safetensors_file(kept))


def of_other_base(directory: Path) -> None:
    shapes = {name: shape for name, (_, shape, _) in lora_tensors().items()}
    wide = {name: zeros("F32", *(2 * n if n == HIDDEN else n for n in shape)) for name, shape in shapes.items()}
    (directory / WEIGHTS).write_bytes(safetensors_file(wide))


LAST_LAYER = f"base_model.model.model.layers.{LAYERS - 1}."
