"""Places of data: a path of this machine, a data set of the Hugging Face Hub, or an object store.

Owns what a place looks like in a recipe, and how its files come to this machine for as long as they are read. A data
set's own README may say which files a split has; no code of a data set is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

from pydantic import BeforeValidator

from switchyard.trainer.errors import DataUnreadable, ObjectsRefused
from switchyard.trainer.objects import ObjectUrl, fetch, is_object_url

_HUB: Final = "hf://datasets/"
_HUB_PLACE: Final = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<path>[^/].*))?"
)
_EXPECTED: Final = (
    "expected a path, hf://datasets/owner/name (with @revision and /file where needed), or an object's URL such as "
    "s3://bucket/rows.jsonl"
)
_SPLITS: Final = {"train": "train", "dev": "validation", "test": "test"}
"""The Hub's names of our splits."""


def _place(value: object) -> object:
    """Turns text into a path, unless it is a place elsewhere."""
    if not isinstance(value, str):
        return value
    if "://" not in value:
        return Path(value)
    if _HUB_PLACE.fullmatch(value) and ".." not in value:
        return value
    try:
        return str(ObjectUrl.parse(value))
    except ObjectsRefused as error:
        raise ValueError(f"{value!a} is no place of data; {_EXPECTED}") from error


DataPlace = Annotated[Path | str, BeforeValidator(_place)]
"""A path, or the text of a place elsewhere."""


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A data set of the Hub, or one file or folder in it.

    Attributes:
        repository: `owner/name`.
        revision: Commit, branch or tag; None for the newest.
        path: File or folder in it; None for the files of a split.
    """

    repository: str
    revision: str | None
    path: str | None

    @classmethod
    def parse(cls, text: str) -> HubPlace | None:
        """Reads a place; None when it is not one of the Hub."""
        found = _HUB_PLACE.fullmatch(text)
        return None if found is None else cls(found["repository"], found["revision"], found["path"])

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{_HUB}{self.repository}{revision}{'' if self.path is None else f'/{self.path}'}"


@contextmanager
def brought(place: Path | str, split: str) -> Iterator[list[Path]]:
    """Has the files of a split at hand while the block runs, in order.

    Args:
        place: As a recipe has it.
        split: `train`, `dev` or `test`.

    Raises:
        DataUnreadable: If the Hub does not give them, or has none for this split.
        ObjectsRefused, ObjectsUnavailable: If an object store does not give them.
    """
    if isinstance(place, Path):
        yield [place]
    elif is_object_url(place):
        with TemporaryDirectory(prefix="switchyard-data-") as scratch:
            yield [fetch(ObjectUrl.parse(place), Path(scratch))]
    else:
        hub = _hub_place(place)
        yield _files(hub, _snapshot(hub), split)


def pinned(place: Path | str) -> Path | str:
    """Names a data set of the Hub by its commit; other places, and names that are commits already, stay.

    Raises:
        DataUnreadable: If the Hub does not give it.
    """
    if isinstance(place, Path) or is_object_url(place):
        return place
    hub = _hub_place(place)
    # The Hub's cache has a directory per commit.
    return str(HubPlace(hub.repository, _snapshot(hub).name, hub.path))


def _hub_place(place: str) -> HubPlace:
    found = HubPlace.parse(place)
    if found is None:
        raise DataUnreadable(f"{place!a} is no place of data; {_EXPECTED}")
    return found


def _snapshot(place: HubPlace) -> Path:
    """Returns the directory of one commit in the Hub's cache, with what the place names in it."""
    import huggingface_hub

    patterns = None if place.path is None else [place.path, f"{place.path}/*"]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                place.repository, repo_type="dataset", revision=place.revision, allow_patterns=patterns
            )
        )
    except (OSError, ValueError) as error:
        raise DataUnreadable(
            f"cannot get the data set {place} from the Hub: {error}. "
            "Check the name, the network, HF_HUB_OFFLINE, and whether the data set wants a licence to be accepted"
        ) from error


def _files(place: HubPlace, snapshot: Path, split: str) -> list[Path]:
    if place.path is not None:
        found = snapshot / place.path
        if not found.exists():
            raise DataUnreadable(f"the data set {place} has no such file or folder")
        return [found]
    return _files_of_split(place, snapshot, _SPLITS[split])


def _files_of_split(place: HubPlace, snapshot: Path, split: str) -> list[Path]:
    """Asks `datasets` which files a split has: by their names, or as the data set's README says."""
    from datasets import load_dataset_builder

    try:
        known = load_dataset_builder(str(snapshot)).config.data_files or {}
    except (OSError, ValueError) as error:
        reason = re.split("\nExample of usage| with any supported", str(error).replace(str(snapshot), "it"))[0]
        raise DataUnreadable(f"cannot tell the files of {place}: {reason}\nName a file: {place}/FILE") from error
    if split not in known:
        found = ", ".join(sorted(known))
        raise DataUnreadable(f"{place} has the splits {found}, and not `{split}`; name a file: {place}/FILE")
    return [Path(one) for one in known[split]]
