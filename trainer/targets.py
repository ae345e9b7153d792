"""The layers that a recipe adapts: from names and patterns to paths in one base model.

Owns the meaning of `lora.targets`, `exclude`, `layers` and the keys of the patterns. Everything is settled before
training, so the adapter's file holds plain names only, and nobody who reads it runs a pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from switchyard.registry.base_model import BaseModelSpec
from switchyard.trainer.errors import TargetsUnknown
from switchyard.trainer.recipe import LoraSection

ALL_LINEAR: Final = "all-linear"
_Value = TypeVar("_Value", int, float)


@dataclass(frozen=True, slots=True)
class AdaptedLayers:
    """What is adapted in one base model.

    Attributes:
        targets: What PEFT is told: sorted ends of paths, or whole paths where ends would say too much.
        ranks: Name or whole path to a rank other than `lora.r`, in the order in which PEFT looks.
        alphas: The same for alpha.
    """

    targets: list[str]
    ranks: dict[str, int]
    alphas: dict[str, float]


def adapted_layers(lora: LoraSection, spec: BaseModelSpec) -> AdaptedLayers:
    """Settles which layers a recipe adapts, and how.

    Args:
        lora: The recipe's section.
        spec: The base, whose linear layers are the choice.

    Raises:
        TargetsUnknown: If a name or pattern matches nothing that it could; lists all of them.
    """
    names = (ALL_LINEAR,) if isinstance(lora.targets, str) else lora.targets
    named = {path for path in spec.modules if ALL_LINEAR in names or any(matches(one, path) for one in names)}
    paths = {path for path in named if not any(matches(one, path) for one in lora.exclude)}
    if lora.layers is not None:
        paths = {path for path in paths if layer_number(path) in lora.layers}
    faults = [
        *_unmatched("targets", [one for one in names if one != ALL_LINEAR], spec.modules),
        *_unmatched("exclude", lora.exclude, named),
        *_missing_layers(lora.layers or (), spec.modules),
        *_unmatched("rank_pattern", lora.rank_pattern, paths),
        *_unmatched("alpha_pattern", lora.alpha_pattern, paths),
    ]
    if not faults and not paths:
        faults.append("lora.exclude and lora.layers leave no layer to adapt")
    if faults:
        leaves = ", ".join(_leaves(spec.modules))
        raise TargetsUnknown(f"{'; '.join(faults)}. {spec.name} has the linear layers {leaves}")
    return AdaptedLayers(
        _told(names, paths, spec), _settled(lora.rank_pattern, paths), _settled(lora.alpha_pattern, paths)
    )


def matches(name: str, path: str) -> bool:
    """Tells whether a name or pattern of a recipe means a layer: the end of its path, or a pattern of the whole."""
    return fnmatchcase(path, name) if _is_pattern(name) else path == name or path.endswith(f".{name}")


def layer_number(path: str) -> int | None:
    """Returns the number of the decoder layer that a path lies in; None outside of them."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), None)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _leaves(paths: Iterable[str]) -> list[str]:
    return sorted({path.rsplit(".", 1)[-1] for path in paths})


def _told(names: Iterable[str], paths: set[str], spec: BaseModelSpec) -> list[str]:
    """Returns the shortest sorted list that means exactly these paths.

    PEFT writes `all-linear` as one path per layer, in an order that differs from process to process. Names say the
    same, are short, and keep the adapter's config the same bytes in every run.
    """
    plain = _leaves(spec.modules) if ALL_LINEAR in names else sorted({one for one in names if not _is_pattern(one)})
    meant = {path for path in spec.modules if any(matches(one, path) for one in plain)}
    return plain if meant == paths else sorted(paths)


def _settled(pattern: Mapping[str, _Value], paths: set[str]) -> dict[str, _Value]:
    """Returns plain names to values; PEFT takes the first that matches, and so did whoever wrote the recipe."""
    found: dict[str, _Value] = {}
    for name, value in pattern.items():
        for one in [name] if not _is_pattern(name) else sorted(path for path in paths if matches(name, path)):
            found.setdefault(one, value)
    return found


def _unmatched(key: str, names: Iterable[str], paths: Iterable[str]) -> list[str]:
    known = list(paths)
    unknown = [name for name in names if not any(matches(name, path) for path in known)]
    reason = "which name no layer of the base" if key == "targets" else "which name no layer that is adapted"
    return [f"lora.{key} has {', '.join(unknown)}, {reason}"] if unknown else []


def _missing_layers(layers: Iterable[int], paths: Iterable[str]) -> list[str]:
    present = {layer_number(path) for path in paths}
    missing = [str(number) for number in layers if number not in present]
    last = max((number for number in present if number is not None), default=-1)
    return [f"lora.layers has {', '.join(missing)}; the base has the layers 0 to {last}"] if missing else []
