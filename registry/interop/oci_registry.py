"""Container registries: a layout pushed to one, and a manifest pulled from one.

Speaks the pull and push halves of the OCI distribution specification,
https://github.com/opencontainers/distribution-spec/blob/main/spec.md. Every
digest is checked on both ways, blobs are streamed, and a blob that the registry
has is not sent again. It knows layouts, not versions (`oci_layout`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import requests

from switchyard.registry.digest import DigestWriter, canonical_json, hex_of, is_digest, sha256_digest
from switchyard.registry.errors import (
    ArgumentInvalid,
    ArtifactNotFound,
    DestinationExists,
    DigestMismatch,
    StorageFailed,
)
from switchyard.registry.interop.oci_layout import (
    DOCUMENT_BYTES,
    LAYOUT_VERSION,
    Layer,
    blob_path,
    descriptor_of_config,
    layers_of,
    read_verified,
)
from switchyard.registry.manifest import MANIFEST_TYPE
from switchyard.registry.storage.durable import mapped_os_errors, sync_directory
from switchyard.registry.verdicts import shown

_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))\Z"
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_TIMEOUT_S = (10.0, 300.0)
_CHUNK_BYTES = 1 << 20
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class OciReference:
    """Where a manifest is, or will be.

    Attributes:
        host: registry, with its port.
        name: repository.
        tag: tag, or empty.
        digest: manifest digest, or empty.
    """

    host: str
    name: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> OciReference:
        """Reads `host[:port]/repository:tag` or `host[:port]/repository@sha256:...`.

        Raises:
            ArgumentInvalid: anything else.
        """
        match = _REFERENCE.match(text)
        if match is None:
            raise ArgumentInvalid(
                f"{shown(text)} is not `host[:port]/repository:tag` or `host[:port]/repository@sha256:<64 hex>`"
            )
        return cls(match["host"], match["name"], match["tag"] or "", match["digest"] or "")

    @property
    def selector(self) -> str:
        """The tag or the digest."""
        return self.digest or self.tag


@dataclass
class OciRegistry:
    """One repository of a container registry.

    Attributes:
        reference: host and repository; the selector is given to each call.
        username: for registries that ask; empty for none.
        password: password or token that goes with it.
        plain_http: speak HTTP; allowed on loopback only.
    """

    reference: OciReference
    username: str = ""
    password: str = field(default="", repr=False)
    plain_http: bool = False
    _session: requests.Session = field(default_factory=requests.Session, repr=False)

    def __post_init__(self) -> None:
        host = urlsplit(f"//{self.reference.host}").hostname
        if self.plain_http and host not in _LOOPBACK:
            raise ArgumentInvalid(f"plain HTTP to {host} would show adapters and passwords to the network; use HTTPS")
        # The environment's proxies and password files are not asked: the caller says all.
        self._session.trust_env = False

    def push(self, layout: Path, manifest_digest: str, tag: str) -> None:
        """Sends a manifest of a layout with its blobs, then names it.

        The manifest goes last, so that a tag never names a manifest whose blobs are missing.

        Raises:
            ArgumentInvalid, DigestMismatch: the layout is not sound.
            StorageFailed: the registry refused or the connection broke; nothing is tagged.
        """
        data = read_verified(layout, manifest_digest)
        for layer in (descriptor_of_config(data), *layers_of(data)):
            self._send_blob(layout, layer)
        url = self._url(f"manifests/{tag or manifest_digest}")
        with self._asked("PUT", url, data=data, headers={"Content-Type": MANIFEST_TYPE}) as reply:
            told = reply.headers.get("Docker-Content-Digest", manifest_digest)
        if told != manifest_digest:
            raise DigestMismatch(f"the registry stored the manifest as {shown(told)}, expected {manifest_digest}")

    def pull(self, selector: str, layout: Path) -> str:
        """Fetches a manifest and its blobs into a new OCI image layout.

        Args:
            selector: tag or digest.
            layout: directory to make; blobs that lie there from an earlier try are kept when they are sound.

        Returns:
            Digest of the manifest.

        Raises:
            ArtifactNotFound: there is none of that name.
            DigestMismatch: other bytes than their digest says.
            DestinationExists: `layout` is a layout already.
            StorageFailed: the registry refused or the connection broke.
        """
        if (layout / "index.json").exists():
            raise DestinationExists(f"{layout} is a layout already; name another directory")
        with self._asked("GET", self._url(f"manifests/{selector}"), headers={"Accept": MANIFEST_TYPE}) as reply:
            data = _limited(reply)
        digest = sha256_digest(data)
        if is_digest(selector) and digest != selector:
            raise DigestMismatch(f"the registry sent a manifest with digest {digest}, expected {selector}")
        with mapped_os_errors(f"writing {layout}"):
            directory = layout / "blobs" / "sha256"
            directory.mkdir(parents=True, exist_ok=True)
            for layer in (descriptor_of_config(data), *layers_of(data)):
                self._fetch_blob(layer, directory)
            (directory / hex_of(digest)).write_bytes(data)
            sync_directory(directory)
            descriptor = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(data)}
            (layout / "oci-layout").write_text(LAYOUT_VERSION)
            (layout / "index.json").write_bytes(canonical_json({"schemaVersion": 2, "manifests": [descriptor]}))
            sync_directory(layout)
        return digest

    def _send_blob(self, layout: Path, layer: Layer) -> None:
        try:
            with self._asked("HEAD", self._url(f"blobs/{layer.digest}")):
                return
        except ArtifactNotFound:
            pass
        path = blob_path(layout, layer.digest)
        with self._asked("POST", self._url("blobs/uploads/"), data=b"") as reply:
            where = urljoin(self._url(""), reply.headers["Location"])
        where += ("&" if urlsplit(where).query else "?") + f"digest={layer.digest}"
        with path.open("rb") as file:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
            # The registry compares the bytes with the digest before it keeps them.
            with self._asked("PUT", where, data=file, headers=headers):
                pass

    def _fetch_blob(self, layer: Layer, directory: Path) -> None:
        part = directory / f"{hex_of(layer.digest)}.part"
        writer = DigestWriter()
        with self._asked("GET", self._url(f"blobs/{layer.digest}")) as reply, part.open("wb") as file:
            for chunk in reply.iter_content(_CHUNK_BYTES):
                writer.write(chunk)
                if writer.size_bytes > layer.size_bytes:
                    break
                file.write(chunk)
        if writer.digest != layer.digest or writer.size_bytes != layer.size_bytes:
            part.unlink()
            raise DigestMismatch(
                f"the registry sent {writer.size_bytes} bytes with digest {writer.digest}, expected "
                f"{layer.size_bytes} with {layer.digest}; nothing of it was kept"
            )
        part.replace(directory / hex_of(layer.digest))

    @contextmanager
    def _asked(
        self,
        method: str,
        url: str,
        *,
        data: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """One exchange, with the credential that the registry asks for."""
        try:
            reply = self._send(method, url, data, headers or {})
            if reply.status_code == requests.codes.unauthorized and self._answer(
                reply.headers.get("WWW-Authenticate")
            ):
                reply.close()
                if data is not None and not isinstance(data, bytes):
                    data.seek(0)
                reply = self._send(method, url, data, headers or {})
            with reply:
                _raise_refusal(reply, method, url)
                yield reply
        except requests.RequestException as error:
            raise StorageFailed(f"{method} {url}: {error}; try again") from error

    def _send(
        self, method: str, url: str, data: bytes | IO[bytes] | None, headers: dict[str, str]
    ) -> requests.Response:
        return self._session.request(method, url, data=data, headers=headers, stream=True, timeout=_TIMEOUT_S)

    def _answer(self, challenge: str | None) -> bool:
        """Prepares the credential for what a registry asks; tells whether asking again can help."""
        if challenge is None or "Authorization" in self._session.headers:
            return False
        scheme, _, rest = challenge.partition(" ")
        basic = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if scheme.lower() == "basic" and self.username:
            self._session.headers["Authorization"] = f"Basic {basic}"
            return True
        if scheme.lower() != "bearer":
            return False
        facts = dict(_CHALLENGE.findall(rest))
        realm = facts.pop("realm", "")
        if urlsplit(realm).scheme != "https" and not self.plain_http:
            raise StorageFailed(f"the registry asks for a token over {shown(realm)}, expected HTTPS")
        headers = {"Authorization": f"Basic {basic}"} if self.username else {}
        reply = self._session.get(realm, params=facts, headers=headers, timeout=_TIMEOUT_S)
        _raise_refusal(reply, "GET", realm)
        body = reply.json()
        self._session.headers["Authorization"] = f"Bearer {body.get('token') or body.get('access_token')}"
        return True

    def _url(self, path: str) -> str:
        scheme = "http" if self.plain_http else "https"
        return f"{scheme}://{self.reference.host}/v2/{self.reference.name}/{path}"


def _limited(reply: requests.Response) -> bytes:
    data = b""
    for chunk in reply.iter_content(_CHUNK_BYTES):
        data += chunk
        if len(data) > DOCUMENT_BYTES:
            raise StorageFailed(f"the registry sent a manifest of more than {DOCUMENT_BYTES} bytes")
    return data


def _raise_refusal(reply: requests.Response, method: str, url: str) -> None:
    if reply.status_code == requests.codes.not_found:
        raise ArtifactNotFound(f"{method} {url}: the registry has none of that name")
    if not reply.ok:
        said = shown(reply.text[:300])
        raise StorageFailed(f"{method} {url}: the registry answered {reply.status_code} {said}")
