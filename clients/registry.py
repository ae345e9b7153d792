"""The registry, from the outside: push, pull, list, resolve, promote.

What people need less often hangs on the client by its noun: `aliases`, `catalog`, `statements`, `upkeep`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from switchyard.clients import record_messages as messages
from switchyard.clients import records, retry
from switchyard.clients.actor import user_name
from switchyard.clients.aliases import AliasCalls
from switchyard.clients.calls import Connection
from switchyard.clients.catalog import CatalogCalls
from switchyard.clients.channel import DEFAULT_ADDRESS, ChannelOptions
from switchyard.clients.download import Downloader
from switchyard.clients.errors import BaseAmbiguous
from switchyard.clients.rollouts import RolloutCalls
from switchyard.clients.source import (
    MANIFEST_NAME,
    SourceFile,
    adapter_directory,
    push_key,
    read_provenance,
    read_source,
)
from switchyard.clients.statements import StatementCalls
from switchyard.clients.upkeep import UpkeepCalls
from switchyard.clients.upload import ProgressCallback, Uploader
from switchyard.clients.watching import Watch
from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.proto.registry.v1 import registry_pb2_grpc as stubs


class RegistryClient:
    """Talks to the registry of one server. Safe to share between threads.

    Attributes:
        aliases: rolls them back, splits, protects, deletes and moves them together.
        catalog: searches, compares, and says things about versions and adapters.
        statements: signatures, evaluations and approvals.
        upkeep: collection, scrubbing, retention and the audit log.
        rollouts: versions that earn an alias.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        options: ChannelOptions | None = None,
        policy: retry.RetryPolicy | None = None,
    ) -> None:
        """Makes a client; its first call connects.

        Args:
            address: `host:port` or `unix:/path`.
            options: deadlines, keepalive and limits.
            policy: when refused calls are sent again.

        Raises:
            AddressInvalid: `address` has no known form.
        """
        self._connection = Connection(address, options, policy)
        self._stub = stubs.RegistryServiceStub(self._connection.channel)  # type: ignore[no-untyped-call]
        self.aliases = AliasCalls(self._connection, self._stub)
        self.catalog = CatalogCalls(self._connection, self._stub)
        self.statements = StatementCalls(self._connection, self._stub)
        self.upkeep = UpkeepCalls(self._connection)
        self.rollouts = RolloutCalls(self._connection)

    def push(
        self,
        directory: Path,
        adapter: str,
        *,
        base_digest: str | None = None,
        lineage: records.Lineage | None = None,
        alias: str | None = None,
        expected_generation: int | None = None,
        note: str = "",
        tags: Mapping[str, str] | None = None,
        signature: bytes | None = None,
        idempotency_key: str | None = None,
        progress: ProgressCallback | None = None,
        directly: bool = False,
    ) -> records.Version:
        """Publishes the adapter in `directory` as the next version of `adapter`.

        Nothing is judged here: the registry verifies every byte and reports all
        faults at once. Pushing the same files again returns the version they made.

        Args:
            directory: the adapter's directory, or the output of a training run.
            adapter: `ns/name`, no selector.
            base_digest: base model that the adapter was trained on; None takes the training
                manifest's, then the only registered one.
            lineage: what produced the adapter; None reads the training manifest beside it.
            alias: alias to move to the new version in the same transaction.
            expected_generation: generation that `alias` must have now; 0 when it must be new.
            note: the publisher's words.
            tags: labels for search, set in the same transaction.
            signature: a bundle over the files, attached in the same transaction.
            idempotency_key: name of this push; None names it by its files and the adapter.
            progress: called as bytes go over.
            directly: send to the store itself where the registry gives out addresses of it.

        Raises:
            SourceInvalid: the directory is not one of plain files.
            BaseAmbiguous: the base model cannot be told.
            RequestInvalid: the files were refused; `faults` lists why.
            ClientError: anything else that the registry or the connection says.
        """
        files = read_source(adapter_directory(directory))
        request = self._described(directory, adapter, files, base_digest, lineage)
        request.note, request.want_upload_urls = note, directly
        request.idempotency_key = idempotency_key or request.idempotency_key
        commit = pb.CommitPublishRequest(
            set_alias=alias or "",
            expected_generation=expected_generation,
            tags=tags or {},
            signature=signature or b"",
        )

        # The whole protocol again, not the commit alone: its first call tells whether a commit whose
        # reply was lost took place.
        def once(_left_s: float) -> records.Version:
            return self._publish(request, files, commit, progress)

        return retry.call(once, self._connection.attempts())

    def check(
        self,
        directory: Path,
        adapter: str,
        *,
        base_digest: str | None = None,
        lineage: records.Lineage | None = None,
        signature: bytes = b"",
        progress: ProgressCallback | None = None,
    ) -> tuple[str, ...]:
        """Runs every check of a push and publishes nothing; what was sent is kept a while for the push.

        Args:
            directory: as for `push`, like all that follows.
            adapter: `ns/name`, no selector.
            base_digest: base model that the adapter was trained on.
            lineage: what produced the adapter.
            signature: a bundle over the files, for a namespace that asks for one.
            progress: called as bytes go over.

        Returns:
            The findings that would not prevent it.

        Raises:
            RequestInvalid: the files would be refused; `faults` lists why.
            ClientError: the others of `push`.
        """
        files = read_source(adapter_directory(directory))
        request = self._described(directory, adapter, files, base_digest, lineage)
        begun = self._connection.unary(self._stub.BeginPublish, request)
        if begun.HasField("committed"):
            return tuple(begun.committed.warnings)
        Uploader(self._connection, self._stub, begun, progress).send_missing(files)
        commit = pb.CommitPublishRequest(session_id=begun.session_id, validate_only=True, signature=signature)
        return tuple(self._connection.unary(self._stub.CommitPublish, commit).warnings)

    def pull(
        self, ref: str, destination: Path, *, progress: ProgressCallback | None = None, directly: bool = False
    ) -> records.Version:
        """Makes `destination` a directory with the files of one version, verified by digest.

        Args:
            ref: `ns/name@alias`, `ns/name:7` or `ns/name@sha256:...`.
            destination: a directory that does not exist yet.
            progress: called as bytes arrive.
            directly: fetch from the store itself where the registry gives out addresses of it.

        Raises:
            DestinationExists: something is at `destination`.
            BytesMismatch: bytes are not those of their digest; nothing is kept.
            ClientError: anything else that the registry or the connection says.
        """
        version = self.resolve(ref).version
        Downloader(self._connection, self._stub, progress, directly=directly).fetch(version, destination)
        return version

    def adapters(self, namespace: str = "") -> list[records.AdapterSummary]:
        """Returns every adapter of one namespace, or of all.

        Raises:
            ClientError: the registry cannot tell.
        """
        pages = self._connection.pages(self._stub.ListAdapters, pb.ListAdaptersRequest(namespace=namespace))
        return [messages.summary_from(one) for page in pages for one in page.adapters]

    def versions(self, adapter: str) -> list[records.Version]:
        """Returns the versions of `ns/name`, newest first.

        Raises:
            NotFound: no such adapter.
        """
        pages = self._connection.pages(self._stub.ListVersions, pb.ListVersionsRequest(adapter=adapter))
        return [messages.version_from(one) for page in pages for one in page.versions]

    def show(self, ref: str) -> records.Version:
        """Returns everything about the version that `ref` names now.

        Raises:
            NotFound: no such adapter, version or alias.
        """
        response = self._connection.unary(self._stub.GetVersion, pb.GetVersionRequest(ref=ref))
        return messages.version_from(response.version)

    def resolve(self, ref: str, *, base_digest: str = "", session_key: str = "") -> records.Resolved:
        """Returns the version that `ref` names now, and the alias behind it.

        Args:
            ref: `ns/name@alias`, `ns/name:7` or `ns/name@sha256:...`.
            base_digest: when set, a version for another base model is refused.
            session_key: decides between the versions of a split; the same key gets the same one.

        Raises:
            NotFound: no such adapter, version or alias.
            PreconditionFailed: made for another base model, or not to be used.
        """
        request = pb.ResolveRequest(ref=ref, base_digest=base_digest, session_key=session_key)
        return messages.resolved_from(self._connection.unary(self._stub.Resolve, request))

    def watch(self, after_revision: int | None = None, *, namespace: str = "", adapter: str = "") -> Watch:
        """Returns the changes of the registry in order; see `Watch`.

        Args:
            after_revision: changes after this one come first; None begins now.
            namespace: only this namespace; empty watches all.
            adapter: only this name within the namespace; empty watches all.
        """
        return Watch(
            self._connection, self._stub, after_revision=after_revision, namespace=namespace, adapter=adapter
        )

    def promote(
        self,
        adapter: str,
        alias: str,
        version: int,
        *,
        expected_generation: int | None = None,
        actor: str = "",
        reason: str = "",
    ) -> records.AliasMove:
        """Moves `alias` of `ns/name` to `version`. Sent once: a lost reply is not answered by a second move.

        Args:
            adapter: `ns/name`, no selector.
            alias: name of the alias; made when new.
            version: number that it shall point at.
            expected_generation: generation that the alias must have now; 0 when it must be new;
                None moves it whatever it is.
            actor: who asks; empty takes the user of this machine.
            reason: why, kept in the history.

        Raises:
            Conflict: the alias has another generation.
            NotFound: no such adapter or version.
        """
        request = pb.SetAliasRequest(
            adapter=adapter,
            alias=alias,
            version=version,
            expected_generation=expected_generation,
            actor=actor or user_name(),
            reason=reason,
        )
        moved = self._connection.unary(self._stub.SetAlias, request, repeatable=False)
        return records.AliasMove(messages.alias_from(moved.alias), moved.previous_version)

    def history(self, adapter: str, alias: str) -> list[records.AliasEvent]:
        """Returns every move of one alias, newest first.

        Raises:
            NotFound: no such adapter or alias.
        """
        found: list[records.AliasEvent] = []
        token = ""
        while True:
            request = pb.ListAliasHistoryRequest(adapter=adapter, alias=alias, page_token=token)
            page = self._connection.unary(self._stub.ListAliasHistory, request)
            found += [messages.alias_event_from(one) for one in page.events]
            token = page.next_page_token
            if not token:
                return found

    def base_models(self) -> list[records.BaseModel]:
        """Returns the registered base models.

        Raises:
            ClientError: the registry cannot tell.
        """
        found = self._connection.unary(self._stub.ListBaseModels, pb.ListBaseModelsRequest())
        return [messages.base_model_from(one) for one in found.base_models]

    def close(self) -> None:
        """Closes the connection; running calls are cancelled."""
        self._connection.close()

    def _described(
        self,
        directory: Path,
        adapter: str,
        files: Sequence[SourceFile],
        base_digest: str | None,
        lineage: records.Lineage | None,
    ) -> pb.BeginPublishRequest:
        """What a push says of its files, named so that the same push again is the same."""
        provenance = read_provenance(adapter_directory(directory))
        request = pb.BeginPublishRequest(
            adapter=adapter,
            files=[pb.FileRef(path=f.path, digest=f.digest, size_bytes=f.size_bytes) for f in files],
            base_digest=base_digest or provenance.base_digest or self._only_base_digest(),
            lineage=messages.lineage_message(lineage or provenance.lineage),
        )
        said = request.lineage.SerializeToString(deterministic=True)
        request.idempotency_key = push_key(adapter, files, request.base_digest, said)
        return request

    def _publish(
        self,
        request: pb.BeginPublishRequest,
        files: Sequence[SourceFile],
        commit: pb.CommitPublishRequest,
        progress: ProgressCallback | None,
    ) -> records.Version:
        begun = self._connection.unary(self._stub.BeginPublish, request)
        if begun.HasField("committed"):
            generation = commit.expected_generation if commit.HasField("expected_generation") else None
            return self._already(messages.version_from(begun.committed), commit.set_alias, generation)
        Uploader(self._connection, self._stub, begun, progress).send_missing(files)
        commit.session_id = begun.session_id
        done = self._connection.unary(self._stub.CommitPublish, commit, repeatable=False)
        return messages.version_from(done.version)

    def _already(self, version: records.Version, alias: str, expected_generation: int | None) -> records.Version:
        """The version of an earlier push; its alias is moved unless that push moved it."""
        if alias and alias not in version.aliases:
            self.promote(version.name, alias, version.version, expected_generation=expected_generation)
            return self.show(version.ref)
        return version

    def _only_base_digest(self) -> str:
        bases = self.base_models()
        if len(bases) == 1:
            return bases[0].digest
        if not bases:
            raise BaseAmbiguous(
                "no base model is registered here, so no adapter can be published: found none, expected the one it "
                "was trained on. `switchyard serve --base DIR --registry DIR` registers it, and so does "
                "`switchyard train --registry DIR`."
            )
        listed = ", ".join(f"{one.name} ({one.digest})" for one in bases)
        raise BaseAmbiguous(
            f"the base model of this adapter is not said: found {len(bases)} registered base "
            f"models ({listed}), expected exactly one, or {MANIFEST_NAME} beside the adapter. "
            "Give the digest (--base-digest)."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
