"""The identity of a run: what must be the same for a checkpoint to be continued.

Owns the comparison. Recipe, data and base decide what is learnt, so a difference is refused. Library versions,
device and threads decide the last bits only, so a difference is a warning. Where checkpoints go and how often is
in neither: it may change between two parts of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from switchyard.trainer.data import Split
from switchyard.trainer.errors import Fault
from switchyard.trainer.provenance import environment
from switchyard.trainer.recipe import Recipe

Identity = Mapping[str, object]
"""A JSON document with the keys `recipe`, `data`, `start`, `base` and `environment`."""


def run_identity(recipe: Recipe, splits: Mapping[str, Split], base_digest: str, start: str | None = None) -> Identity:
    """Returns the identity of a run that is about to start; arguments as in `learnt_identity`, and the base's."""
    return {**learnt_identity(recipe, splits, start), "base": base_digest, "environment": environment()}


def learnt_identity(recipe: Recipe, splits: Mapping[str, Split], start: str | None = None) -> Identity:
    """Returns the part that is known before the base is loaded.

    Args:
        recipe: What is done.
        splits: What is learnt.
        start: Digest of the version that the run began with, or None.
    """
    digests = {name: split.digest for name, split in splits.items()}
    return {"recipe": recipe.document(), "data": digests, "start": start}


def differences(saved: Identity, now: Identity) -> list[Fault]:
    """Compares what `now` knows, apart from the environment.

    Args:
        saved: The checkpoint's whole identity.
        now: The run's, or a part of it.
    """
    keys = [key for key in now if key != "environment"]
    return _compare({key: saved.get(key) for key in keys}, {key: now[key] for key in keys})


def environment_differences(saved: Identity, now: Identity) -> list[Fault]:
    """Compares versions, device and threads."""
    return _compare({"environment": saved.get("environment")}, {"environment": now["environment"]})


def _compare(saved: Identity, now: Identity) -> list[Fault]:
    before, after = dict(_leaves("", saved)), dict(_leaves("", now))
    keys = [*after, *(key for key in before if key not in after)]
    return [
        Fault(key.removeprefix("recipe."), f"the checkpoint has {_shown(before, key)}, this run {_shown(after, key)}")
        for key in keys
        if _shown(before, key) != _shown(after, key)
    ]


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, value


def _shown(leaves: Mapping[str, object], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "nothing"
