"""Everything that can be set about a server: parsed once, validated, frozen.

Values come from a YAML file and from flags; flags win. Unknown keys are errors,
because a misspelt limit that is ignored is no limit.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from switchyard.registry.errors import RefSyntax
from switchyard.registry.refs import AdapterName
from switchyard.server.calls.quotas import Quota
from switchyard.server.engine.limits import FairnessRules, TenantPolicy
from switchyard.server.observe.log import LogFormat
from switchyard.server.protection import AccessMode, TlsFiles, is_local, require_protection, tls_files

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Quantization(StrEnum):
    """How the resident base is quantised; `auto` keeps a quantised checkpoint as it is, and takes NF4 for others."""

    AUTO = "auto"
    NF4 = "nf4"
    INT8 = "int8"
    NONE = "none"


class Dtype(StrEnum):
    """dtype of activations, KV cache and weights that are not quantised."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class QuotaSettings(BaseModel):
    """What may be asked for: by one tenant, or of one adapter by everybody together.

    Attributes:
        requests_per_minute: calls for answers or vectors; None for no limit, as below.
        tokens_per_minute: tokens of prompts and answers.
        max_live: calls under way at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    max_live: Count | None = None

    @property
    def quota(self) -> Quota:
        """The same for calls."""
        return Quota(self.requests_per_minute, self.tokens_per_minute, self.max_live)


class TenantSettings(QuotaSettings):
    """What one tenant may have.

    Attributes:
        weight: its share of the service, relative to the others'.
        max_running: sequences in the batch; None for as many as there are rows.
        max_waiting: sequences that wait; None for as many as the queue holds.
    """

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    max_running: Count | None = None
    max_waiting: Annotated[int, Field(ge=0)] | None = None

    @property
    def policy(self) -> TenantPolicy:
        """The same for the engine."""
        return TenantPolicy(self.weight, self.max_running, self.max_waiting)


class ServerConfig(BaseModel):
    """One server.

    Attributes:
        base: directory or hub id of the base model.
        registry: directory of the registry.
        revision: branch, tag or commit of a hub id.
        host: address to listen on; one that other machines reach needs `access` and TLS.
        port: of gRPC; 0 takes a free one.
        health_port: of gRPC health checks; 0 takes a free one.
        http_port: of `/metrics` and `/health`, always on loopback; 0 takes a free one.
        openai_port: of the OpenAI-compatible HTTP face, on `host`; 0 takes a free one, None has none.
        access: whether callers prove who they are.
        tls_certificate: PEM file of the server's certificate; None for no TLS.
        tls_key: PEM file of its key.
        tls_client_ca: PEM file of who signs client certificates; None asks for none.
        tls_client_required: refuse clients without a certificate.
        max_sequences: sequences in one batch, each with a row of the KV cache.
        max_context_tokens: tokens that prompt and answer may have together; None for what the model allows.
        prefill_chunk_tokens: prompt tokens of one request in one step; a multiple of 64, where cached prefixes end.
        prefill_share: most of a step's time that prompts may take while answers are under way, whose next tokens wait
            for it; 1 for all of it.
        kv_cache_bytes: memory for keys and values of running sequences and cached prefixes; None for whole rows, and
            the prefixes beside them. Short of it, cached prefixes go first, then sequences are preempted.
        prefix_cache_bytes: most memory for the keys and values of beginnings of prompts; 0 keeps none.
        max_queue: accepted requests that may wait.
        tenants: what single tenants may have, by the name that access control proves.
        other_tenants: what every other tenant may have; None for weight 1 and no limits.
        adapters: what single adapters may be asked for, by `ns/name`.
        other_adapters: what every other adapter may be asked for; None for no limits.
        default_max_tokens: answer length when the caller names none.
        max_prompt_bytes: largest prompt text, in UTF-8 bytes.
        max_request_s: longest life of a request, in seconds.
        adapter_slots: adapters that can be resident at once.
        adapter_bytes: bytes that resident adapters may take together; None for as many as the slots hold.
        max_rank: largest rank of an adapter or composition.
        host_cache_bytes: host memory for adapters.
        quantization: of the base.
        dtype: see `Dtype`.
        threads: threads of torch; None leaves its default.
        worker_process: whether base, adapters and engine run in a process of their own, so that nothing that
            callers cause takes the interpreter from the engine.
        drain_grace_s: seconds that running answers get when the server stops.
        write_stall_s: seconds that one message may wait for its reader.
        adapter_series: adapters with metric series of their own.
        rollout_look_s: seconds between two looks at the rollouts of the registry.
        reflection: whether callers may ask for the schema.
        log_format: see `LogFormat`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    base: str = Field(min_length=1)
    registry: Path
    revision: str | None = None
    access: AccessMode = AccessMode.NONE
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_client_required: bool = False
    host: str = Field(default="127.0.0.1", validate_default=True)
    port: Port = 50051
    health_port: Port = 50052
    http_port: Port = 9464
    openai_port: Port | None = None
    max_sequences: Count = 16
    max_context_tokens: Count | None = None
    prefill_chunk_tokens: Annotated[int, Field(ge=64, multiple_of=64)] = 256
    prefill_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    kv_cache_bytes: Count | None = None
    prefix_cache_bytes: Annotated[int, Field(ge=0)] = 1 << 28
    max_queue: Annotated[int, Field(ge=0)] = 256
    tenants: dict[str, TenantSettings] = Field(default={})
    other_tenants: TenantSettings | None = None
    adapters: dict[str, QuotaSettings] = Field(default={})
    other_adapters: QuotaSettings | None = None
    default_max_tokens: Count = 256
    max_prompt_bytes: Count = 256 * 1024
    max_request_s: Seconds = 600.0
    adapter_slots: Count = 8
    adapter_bytes: Count | None = None
    max_rank: Annotated[int, Field(ge=1, le=4096)] = 64
    host_cache_bytes: Count = 1 << 30
    quantization: Quantization = Quantization.AUTO
    dtype: Dtype = Dtype.AUTO
    threads: Count | None = None
    worker_process: bool = False
    drain_grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    write_stall_s: Seconds = 30.0
    adapter_series: Count = 32
    rollout_look_s: Seconds = 2.0
    reflection: bool = True
    log_format: LogFormat = LogFormat.HUMAN

    @field_validator("host")
    @classmethod
    def _protected(cls, host: str, others: ValidationInfo) -> str:
        """Takes an IP address, and one that other machines reach only with what that needs."""
        host = "127.0.0.1" if host == "localhost" else host
        try:
            ip_address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IP address; use 127.0.0.1") from None
        access = others.data.get("access", AccessMode.NONE)
        require_protection(f"[{host}]:0", access, has_tls=others.data.get("tls_certificate") is not None)
        return host

    @field_validator("adapters")
    @classmethod
    def _adapter_names(cls, adapters: dict[str, QuotaSettings]) -> dict[str, QuotaSettings]:
        """Refuses a name that no adapter can have: its limit would never hold."""
        wrong = [name for name in adapters if not _is_adapter(name)]
        if wrong:
            raise ValueError(f"{', '.join(map(repr, wrong))}: expected names of adapters, like ns/name")
        return adapters

    @model_validator(mode="after")
    def _whole_tls(self) -> ServerConfig:
        """Refuses half of what TLS needs."""
        _ = self.tls
        return self

    @model_validator(mode="after")
    def _distinct_ports(self) -> ServerConfig:
        """Refuses one port for two listeners."""
        names = ("port", "health_port", "http_port", "openai_port")
        fixed = [port for name in names if (port := getattr(self, name))]
        if len(set(fixed)) != len(fixed):
            listed = ", ".join(f"{name} {getattr(self, name)}" for name in names)
            raise ValueError(f"{listed} must differ")
        return self

    @property
    def tls(self) -> TlsFiles | None:
        """Certificate files; None for no TLS."""
        return tls_files(
            self.tls_certificate, self.tls_key, self.tls_client_ca, client_required=self.tls_client_required
        )

    @property
    def fairness(self) -> FairnessRules:
        """How the engine shares the server."""
        tenants = {tenant: settings.policy for tenant, settings in self.tenants.items()}
        return FairnessRules(tenants, (self.other_tenants or TenantSettings()).policy)

    def tenant_quota(self, tenant: str) -> Quota:
        """What a tenant may have in a minute and at once."""
        return (self.tenants.get(tenant) or self.other_tenants or TenantSettings()).quota

    def adapter_quota(self, adapter: str) -> Quota:
        """What an adapter, as `ns/name`, may be asked for in a minute and at once."""
        return (self.adapters.get(adapter) or self.other_adapters or QuotaSettings()).quota

    @property
    def http_host(self) -> str:
        """Where metrics are told: they name adapters, and nobody proves who asks for them."""
        return self.host if is_local(self.host) else "127.0.0.1"

    def address(self, port: int) -> str:
        """`host:port` in the form that listeners take."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def _is_adapter(name: str) -> bool:
    try:
        return str(AdapterName.parse(name)) == name
    except RefSyntax:
        return False


def read_config(file: Path | None, flags: dict[str, object]) -> ServerConfig:
    """Reads a file and lays flags over it.

    Args:
        file: YAML mapping of the attributes of `ServerConfig`; None for flags alone.
        flags: values by attribute; None means that the flag was not given.

    Raises:
        ValueError: the file is no mapping, or pydantic's ValidationError, which lists every fault.
        OSError: the file cannot be read.
    """
    values: object = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}, expected a mapping of settings")
    return ServerConfig.model_validate(values | {key: value for key, value in flags.items() if value is not None})
