"""The parent: the published version that a new adapter is compared with.

Owns fetching it from where the new one will go. A version that does not exist yet is nobody to be worse than, so the
first publish of a name needs no other recipe than the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from switchyard.registry.errors import NotFound, RegistryError
from switchyard.registry.refs import AdapterRef
from switchyard.trainer.errors import Fault, GateUnusable
from switchyard.trainer.gate.run import Parent
from switchyard.trainer.publish import PublishTarget


@contextmanager
def parent_of(ref: str | None, target: PublishTarget | None) -> Iterator[Parent | None]:
    """Has the files of a version at hand while the block runs.

    Args:
        ref: `gate.parent` of the recipe.
        target: Where the adapter will be published.

    Yields:
        The version, or None when no parent is asked for or none is there yet.

    Raises:
        GateUnusable: If `ref` names no version, no place is known, or it cannot be fetched.
    """
    if ref is None:
        yield None
        return
    if target is None:
        raise _unusable(ref, "it lies in a registry: add --registry DIR or --server ADDR")
    with TemporaryDirectory(prefix="switchyard-parent-") as scratch:
        yield _fetched(ref, target, Path(scratch) / "parent")


def _fetched(ref: str, target: PublishTarget, into: Path) -> Parent | None:
    if target.registry is not None:
        return _from_registry(ref, target.registry, into)
    return _from_server(ref, str(target.server), into)


def _from_registry(ref: str, root: Path, into: Path) -> Parent | None:
    from switchyard.registry.store import Registry

    try:
        parsed = AdapterRef.parse(ref)
        if not root.exists():
            return None
        with Registry.open(root) as registry:
            version = registry.pull(parsed, into)
    except NotFound:
        return None
    except (RegistryError, OSError) as error:
        raise _unusable(ref, str(error)) from error
    return Parent(f"{version.namespace}/{version.adapter}:{version.version}", into)


def _from_server(ref: str, address: str, into: Path) -> Parent | None:
    from switchyard.clients import errors
    from switchyard.clients.registry import RegistryClient

    try:
        with RegistryClient(address) as client:
            version = client.pull(ref, into)
    except errors.NotFound:
        return None
    except (errors.ClientError, OSError) as error:
        raise _unusable(ref, str(error)) from error
    return Parent(version.ref, into)


def _unusable(ref: str, message: str) -> GateUnusable:
    return GateUnusable(f"gate.parent {ref} cannot be compared with:", [Fault("gate.parent", message)])
