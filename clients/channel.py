"""Addresses of servers and the channels to them.

Owns the channel options. Retries are not gRPC's (they are switched off here):
`switchyard.clients.retry` decides, because only it reads `RetryInfo`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import grpc

from switchyard.clients.credentials import Credentials, from_environment
from switchyard.clients.errors import AddressInvalid

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
"""Where `switchyard serve` listens unless told otherwise."""

_HOST_PORT: Final = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_UNIX_PATH_BYTES: Final = 107  # sun_path of Linux, without its terminating zero


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a client talks to its server.

    Attributes:
        deadline_s: seconds that a call may take, its retries included, unless the call says otherwise.
        keepalive_s: seconds of silence after which a running call asks whether the peer is alive.
        keepalive_timeout_s: seconds to wait for that answer before the connection counts as broken.
        max_message_bytes: largest message accepted.
        credentials: what proves the caller; None reads the environment.
    """

    deadline_s: float = 300.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    max_message_bytes: int = 16 * 1024 * 1024
    credentials: Credentials | None = None


def check_address(address: str) -> str:
    """Returns `address` if it has one of the two forms, `host:port` or `unix:/path`.

    Raises:
        AddressInvalid: it has neither.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if path.startswith("/") and len(path.encode()) <= _UNIX_PATH_BYTES:
            return address
    match = _HOST_PORT.fullmatch(address)
    if match and 0 < int(match["port"]) <= 65535:
        return address
    raise AddressInvalid(
        f"not an address: found {address!r}, expected `host:port` such as {DEFAULT_ADDRESS} "
        f"or `unix:/absolute/path` of at most {_UNIX_PATH_BYTES} bytes."
    )


def open_channel(address: str, options: ChannelOptions) -> grpc.Channel:
    """Opens a channel; the connection is made by the first call.

    Raises:
        AddressInvalid: `address` has no known form.
        CredentialInvalid: a file of TLS cannot be read.
    """
    secure = _secure(check_address(address), options)
    if secure is None:
        return grpc.insecure_channel(address, options=_arguments(address, options))
    return grpc.secure_channel(address, secure, options=_arguments(address, options))


def open_async_channel(address: str, options: ChannelOptions) -> grpc.aio.Channel:
    """Opens a channel for asyncio; the connection is made by the first call.

    Raises:
        AddressInvalid: `address` has no known form.
        CredentialInvalid: a file of TLS cannot be read.
    """
    secure = _secure(check_address(address), options)
    if secure is None:
        return grpc.aio.insecure_channel(address, options=_arguments(address, options))
    return grpc.aio.secure_channel(address, secure, options=_arguments(address, options))


def credential_metadata(address: str, options: ChannelOptions) -> tuple[tuple[str, str], ...]:
    """Metadata that proves the caller.

    Raises:
        CredentialInvalid: a token or certificate cannot be used, or not safely.
    """
    return credentials_of(options).metadata(address, is_local=_is_local(address))


def credentials_of(options: ChannelOptions) -> Credentials:
    """The credentials given, or those of the environment."""
    return options.credentials if options.credentials is not None else from_environment()


def _secure(address: str, options: ChannelOptions) -> grpc.ChannelCredentials | None:
    """What TLS is made with; None on a Unix socket, and where nobody asks for TLS."""
    credentials = credentials_of(options)
    return None if address.startswith("unix:") or not credentials.uses_tls else credentials.channel_credentials()


def _arguments(address: str, options: ChannelOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", round(options.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout_s * 1000)),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        # A server that was restarted is found again within a second, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # An HTTP proxy of the environment cannot reach this machine's own sockets.
        ("grpc.enable_http_proxy", 0 if _is_local(address) else 1),
    ]


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
