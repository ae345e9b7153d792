"""Many versions from one loop: each has the one before it as its parent, and only the newest stay.

Owns the chain and the count. Only versions that this loop made are ever deleted, and none that an alias names.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from switchyard.registry.lineage import Lineage
from switchyard.trainer.errors import PublishFailed, PublishTargetInvalid
from switchyard.trainer.provenance import code_commit, environment
from switchyard.trainer.publish import Published, publish
from switchyard.trainer.staging import quantization_of

if TYPE_CHECKING:
    from peft import PeftModel

    from switchyard.clients.registry import RegistryClient

_REASON = "replaced by newer versions of the same loop"


class PublishLoop:
    """Publishes the adapter of a model as often as it is asked to."""

    def __init__(
        self,
        ref: str,
        *,
        keep: int,
        registry: Path | str | None = None,
        server: str | None = None,
        base: Path | str | None = None,
        parent: str | None = None,
    ) -> None:
        """Says where the versions go.

        Args:
            ref: `namespace/name`, or `namespace/name@alias` to move the alias to each new version.
            keep: Versions of this loop that stay.
            registry: Directory of an embedded registry.
            server: Address of a server. Give exactly one of `registry` and `server`.
            base: Directory of the original base model; by default where the adapter's config says.
            parent: Digest of the version that the loop began with, or None.

        Raises:
            PublishTargetInvalid: If `keep` is below 1, or the place is not clear.
        """
        if keep < 1:
            raise PublishTargetInvalid(f"keep is {keep}; a loop keeps at least the newest version")
        if (registry is None) == (server is None):
            raise PublishTargetInvalid("give exactly one of registry and server")
        self._ref = ref
        self._keep = keep
        self._registry = None if registry is None else Path(registry)
        self._server = server
        self._base = base
        self._parent = parent
        self._made: list[str] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="switchyard-loop-")

    @property
    def kept(self) -> tuple[str, ...]:
        """Exact refs of this loop's versions that are there, oldest first."""
        return tuple(self._made)

    def publish(self, adapter: PeftModel | Path | str, *, lineage: Lineage | None = None) -> Published:
        """Publishes one more version, then deletes what is too old.

        Args:
            adapter: As for `switchyard.trainer.publish.publish`.
            lineage: What produced it; its parents are replaced by the version before.

        Raises:
            TrainerError: As `publish` raises them; what was published before stays.
        """
        known = lineage or Lineage(
            code_commit=code_commit(Path.cwd()),
            training_quantization=None if isinstance(adapter, Path | str) else quantization_of(adapter.config),
            environment=environment(),
        )
        parents = () if self._parent is None else (self._parent,)
        done = publish(
            adapter,
            ref=self._ref,
            registry=self._registry,
            server=self._server,
            base=self._base,
            lineage=dataclasses.replace(known, parents=parents),
            out=tempfile.mkdtemp(dir=self._scratch.name),
        )
        self._parent = done.digest
        # Equal content is the version that is there already.
        self._made = [*(ref for ref in self._made if ref != done.ref), done.ref]
        self._delete_old()
        return done

    def _delete_old(self) -> None:
        from switchyard.clients.catalog import VersionAction
        from switchyard.clients.errors import ClientError

        if len(self._made) <= self._keep:
            return
        try:
            with self._client() as client:
                for ref in self._made[: -self._keep]:
                    if not client.show(ref).aliases:
                        adapter, _, number = ref.rpartition(":")
                        client.catalog.act(adapter, int(number), VersionAction.DELETE, reason=_REASON)
                        self._made.remove(ref)
        except (ClientError, OSError) as error:
            raise PublishFailed(
                f"{self._made[-1]} is published, but older versions of the loop could not be deleted: {error}"
            ) from error

    @contextmanager
    def _client(self) -> Iterator[RegistryClient]:
        from switchyard.clients.embedded import embedded_registry
        from switchyard.clients.registry import RegistryClient

        if self._registry is not None:
            with embedded_registry(self._registry) as address, RegistryClient(address) as client:
                yield client
        else:
            with RegistryClient(str(self._server)) as client:
                yield client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.cleanup()
