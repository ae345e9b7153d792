"""`switchyard serve` and `switchyard registry-service`.

The registry service must start fast and small, so nothing that imports torch
is imported here at the top.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from switchyard.registry.errors import RegistryError
from switchyard.server.config import Dtype, Quantization, ServerConfig, read_config
from switchyard.server.errors import ServerError
from switchyard.server.lifecycle import write_ready_file
from switchyard.server.observe.log import LogFormat, configure
from switchyard.server.protection import AccessMode, require_protection, tls_files

ReadyFile = Annotated[
    Path | None, typer.Option(help="Write the addresses here as JSON once requests are taken.", dir_okay=False)
]
RegistryDirectory = Annotated[Path | None, typer.Option(help="Directory of the registry.", file_okay=False)]
AccessOption = Annotated[AccessMode | None, typer.Option(help="Whether callers prove who they are.")]
CertificateOption = Annotated[Path | None, typer.Option(help="PEM file of the certificate.", dir_okay=False)]
KeyOption = Annotated[Path | None, typer.Option(help="PEM file of its key.", dir_okay=False)]
ClientCaOption = Annotated[
    Path | None, typer.Option(help="PEM file of who signs client certificates.", dir_okay=False)
]
ClientRequiredOption = Annotated[bool | None, typer.Option(help="Refuse clients without a certificate.")]


def serve(
    base: Annotated[str | None, typer.Option(help="Directory or hub id of the base model.")] = None,
    registry: RegistryDirectory = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with settings; flags win.", dir_okay=False)] = None,
    check_config: Annotated[bool, typer.Option(help="Print the settings and stop.")] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on; others than loopback need TLS.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of gRPC; 0 takes a free one.")] = None,
    health_port: Annotated[int | None, typer.Option(help="Port of gRPC health checks.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of /metrics and /health, on loopback.")] = None,
    openai_port: Annotated[int | None, typer.Option(help="Port of the OpenAI-compatible HTTP face.")] = None,
    access: AccessOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    tls_client_ca: ClientCaOption = None,
    tls_client_required: ClientRequiredOption = None,
    max_sequences: Annotated[int | None, typer.Option(help="Sequences in one batch.")] = None,
    max_context_tokens: Annotated[int | None, typer.Option(help="Tokens of prompt and answer together.")] = None,
    prefill_chunk_tokens: Annotated[int | None, typer.Option(help="Prompt tokens per request and step.")] = None,
    prefill_share: Annotated[float | None, typer.Option(help="Most of a step that prompts may take.")] = None,
    kv_cache_bytes: Annotated[int | None, typer.Option(help="Memory for keys and values, in bytes.")] = None,
    prefix_cache_bytes: Annotated[int | None, typer.Option(help="Most of it for beginnings of prompts.")] = None,
    max_queue: Annotated[int | None, typer.Option(help="Accepted requests that may wait.")] = None,
    default_max_tokens: Annotated[int | None, typer.Option(help="Answer length when a caller names none.")] = None,
    adapter_slots: Annotated[int | None, typer.Option(help="Adapters that can be resident at once.")] = None,
    adapter_bytes: Annotated[int | None, typer.Option(help="Bytes of all resident adapters together.")] = None,
    max_rank: Annotated[int | None, typer.Option(help="Largest rank of an adapter or composition.")] = None,
    host_cache_bytes: Annotated[int | None, typer.Option(help="Host memory for adapters, in bytes.")] = None,
    quantization: Annotated[Quantization | None, typer.Option(help="Quantisation of the base.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="dtype of activations and KV cache.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.")] = None,
    worker_process: Annotated[bool | None, typer.Option(help="Run the engine in a process of its own.")] = None,
    drain_grace_s: Annotated[float | None, typer.Option(help="Seconds that answers get at the end.")] = None,
    log_format: Annotated[LogFormat | None, typer.Option(help="Lines for people or for machines.")] = None,
    ready_file: ReadyFile = None,
) -> None:
    """Serve the base model and every adapter published for it."""
    flags: dict[str, object] = {
        field: value for field, value in locals().items() if field in ServerConfig.model_fields and value is not None
    }
    settings = _settings(config, flags)
    if check_config:
        typer.echo(settings.model_dump_json(indent=2))
        return
    configure(settings.log_format)
    # Read when torch is first imported: spinning threads take the core that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    raise typer.Exit(_exit_status(lambda: _serve(settings, ready_file)))


def registry_service(
    registry: Annotated[Path, typer.Option(help="Directory of the registry.", file_okay=False)],
    listen: Annotated[str, typer.Option(help="unix:/path, or 127.0.0.1:port with 0 for a free one.")] = "127.0.0.1:0",
    ready_file: ReadyFile = None,
    until_stdin_closes: Annotated[
        bool, typer.Option(help="Stop when standard input ends, so that no service outlives its caller.")
    ] = False,
    drain_grace_s: Annotated[float, typer.Option(min=0, help="Seconds that calls get at the end.")] = 5.0,
    access: AccessOption = None,
    tls_certificate: CertificateOption = None,
    tls_key: KeyOption = None,
    tls_client_ca: ClientCaOption = None,
    tls_client_required: ClientRequiredOption = None,
    log_format: Annotated[LogFormat, typer.Option(help="Lines for people or for machines.")] = LogFormat.HUMAN,
) -> None:
    """Serve the registry alone, without a model."""
    configure(log_format)
    mode = access or AccessMode.NONE
    try:
        tls = tls_files(tls_certificate, tls_key, tls_client_ca, client_required=bool(tls_client_required))
        require_protection(listen, mode, has_tls=tls is not None)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None

    def run() -> int:
        from switchyard.server.registry_service import serve_registry

        def announce(address: str) -> None:
            if ready_file is not None:
                write_ready_file(ready_file, {"grpc": address, "pid": os.getpid()})
            typer.echo(f"ready: registry {registry} on {address}")

        return asyncio.run(
            serve_registry(
                registry,
                listen,
                announce,
                drain_grace_s=drain_grace_s,
                until_stdin_closes=until_stdin_closes,
                access=mode,
                tls=tls,
            )
        )

    raise typer.Exit(_exit_status(run))


def _settings(file: Path | None, flags: dict[str, object]) -> ServerConfig:
    try:
        return read_config(file, flags)
    except ValidationError as error:
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"]) or "settings"
            typer.echo(f"error: {field}: {fault['msg']}", err=True)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2)


def _serve(settings: ServerConfig, ready_file: Path | None) -> int:
    from switchyard.server.main import Addresses
    from switchyard.server.main import serve as run_server

    def announce(addresses: Addresses) -> None:
        if ready_file is not None:
            write_ready_file(ready_file, dataclasses.asdict(addresses))
        scheme = "https" if settings.tls is not None else "http"
        openai = f", OpenAI on {scheme}://{addresses.openai}/v1" if addresses.openai else ""
        metrics = f"metrics on http://{addresses.http}/metrics"
        typer.echo(f"ready: gRPC on {addresses.grpc}, health on {addresses.health}, {metrics}{openai}")

    return asyncio.run(run_server(settings, announce))


def _exit_status(run: Callable[[], int]) -> int:
    """Runs a service; what it raises on purpose becomes one line and status 1."""
    try:
        return run()
    except (ServerError, RegistryError) as error:
        typer.echo(f"error: {error.reason}: {error}", err=True)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
    return 1
