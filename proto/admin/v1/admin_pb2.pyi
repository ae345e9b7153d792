from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AdapterState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADAPTER_STATE_UNSPECIFIED: _ClassVar[AdapterState]
    ADAPTER_STATE_FETCHING: _ClassVar[AdapterState]
    ADAPTER_STATE_HOST: _ClassVar[AdapterState]
    ADAPTER_STATE_RESIDENT: _ClassVar[AdapterState]
    ADAPTER_STATE_FAILED: _ClassVar[AdapterState]

class PlannedPlace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLANNED_PLACE_UNSPECIFIED: _ClassVar[PlannedPlace]
    PLANNED_PLACE_SLOT: _ClassVar[PlannedPlace]
    PLANNED_PLACE_HOST: _ClassVar[PlannedPlace]
    PLANNED_PLACE_REGISTRY: _ClassVar[PlannedPlace]
    PLANNED_PLACE_NOWHERE: _ClassVar[PlannedPlace]
ADAPTER_STATE_UNSPECIFIED: AdapterState
ADAPTER_STATE_FETCHING: AdapterState
ADAPTER_STATE_HOST: AdapterState
ADAPTER_STATE_RESIDENT: AdapterState
ADAPTER_STATE_FAILED: AdapterState
PLANNED_PLACE_UNSPECIFIED: PlannedPlace
PLANNED_PLACE_SLOT: PlannedPlace
PLANNED_PLACE_HOST: PlannedPlace
PLANNED_PLACE_REGISTRY: PlannedPlace
PLANNED_PLACE_NOWHERE: PlannedPlace

class AdapterStatus(_message.Message):
    __slots__ = ("digest", "state", "host_bytes", "device_bytes", "pins", "error_reason", "retry_after_s")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    digest: str
    state: AdapterState
    host_bytes: int
    device_bytes: int
    pins: int
    error_reason: str
    retry_after_s: float
    def __init__(self, digest: _Optional[str] = ..., state: _Optional[_Union[AdapterState, str]] = ..., host_bytes: _Optional[int] = ..., device_bytes: _Optional[int] = ..., pins: _Optional[int] = ..., error_reason: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "base_name", "base_digest", "quantization", "max_sequences", "max_context_tokens", "max_rank", "adapter_slots", "host_cache_bytes", "base_fingerprint", "adapter_bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_RANK_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_SLOTS_FIELD_NUMBER: _ClassVar[int]
    HOST_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_BYTES_FIELD_NUMBER: _ClassVar[int]
    version: str
    base_name: str
    base_digest: str
    quantization: str
    max_sequences: int
    max_context_tokens: int
    max_rank: int
    adapter_slots: int
    host_cache_bytes: int
    base_fingerprint: str
    adapter_bytes: int
    def __init__(self, version: _Optional[str] = ..., base_name: _Optional[str] = ..., base_digest: _Optional[str] = ..., quantization: _Optional[str] = ..., max_sequences: _Optional[int] = ..., max_context_tokens: _Optional[int] = ..., max_rank: _Optional[int] = ..., adapter_slots: _Optional[int] = ..., host_cache_bytes: _Optional[int] = ..., base_fingerprint: _Optional[str] = ..., adapter_bytes: _Optional[int] = ...) -> None: ...

class GetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLoadResponse(_message.Message):
    __slots__ = ("waiting_requests", "running_sequences", "kv_rows_used", "kv_rows_total", "adapters_resident", "adapter_host_bytes", "adapter_device_bytes", "rss_bytes", "draining", "kv_blocks_running", "kv_blocks_cached", "kv_blocks_total", "waiting")
    WAITING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    KV_ROWS_USED_FIELD_NUMBER: _ClassVar[int]
    KV_ROWS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_RESIDENT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_DEVICE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_CACHED_FIELD_NUMBER: _ClassVar[int]
    KV_BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    waiting_requests: int
    running_sequences: int
    kv_rows_used: int
    kv_rows_total: int
    adapters_resident: int
    adapter_host_bytes: int
    adapter_device_bytes: int
    rss_bytes: int
    draining: bool
    kv_blocks_running: int
    kv_blocks_cached: int
    kv_blocks_total: int
    waiting: _containers.RepeatedCompositeFieldContainer[Waiting]
    def __init__(self, waiting_requests: _Optional[int] = ..., running_sequences: _Optional[int] = ..., kv_rows_used: _Optional[int] = ..., kv_rows_total: _Optional[int] = ..., adapters_resident: _Optional[int] = ..., adapter_host_bytes: _Optional[int] = ..., adapter_device_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., draining: _Optional[bool] = ..., kv_blocks_running: _Optional[int] = ..., kv_blocks_cached: _Optional[int] = ..., kv_blocks_total: _Optional[int] = ..., waiting: _Optional[_Iterable[_Union[Waiting, _Mapping]]] = ...) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("reason", "explanation", "sequences")
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    reason: str
    explanation: str
    sequences: int
    def __init__(self, reason: _Optional[str] = ..., explanation: _Optional[str] = ..., sequences: _Optional[int] = ...) -> None: ...

class ListAdapterStatesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAdapterStatesResponse(_message.Message):
    __slots__ = ("adapters",)
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterStatus]
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterStatus, _Mapping]]] = ...) -> None: ...

class LoadAdapterRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    def __init__(self, ref: _Optional[str] = ...) -> None: ...

class LoadAdapterResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: AdapterStatus
    def __init__(self, status: _Optional[_Union[AdapterStatus, _Mapping]] = ...) -> None: ...

class UnloadAdapterRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    def __init__(self, ref: _Optional[str] = ...) -> None: ...

class UnloadAdapterResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: AdapterStatus
    def __init__(self, status: _Optional[_Union[AdapterStatus, _Mapping]] = ...) -> None: ...

class PlanRequest(_message.Message):
    __slots__ = ("refs",)
    REFS_FIELD_NUMBER: _ClassVar[int]
    refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, refs: _Optional[_Iterable[str]] = ...) -> None: ...

class PlannedAdapter(_message.Message):
    __slots__ = ("ref", "digest", "place", "size_bytes", "in_memory", "error_reason", "message")
    REF_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IN_MEMORY_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ref: str
    digest: str
    place: PlannedPlace
    size_bytes: int
    in_memory: bool
    error_reason: str
    message: str
    def __init__(self, ref: _Optional[str] = ..., digest: _Optional[str] = ..., place: _Optional[_Union[PlannedPlace, str]] = ..., size_bytes: _Optional[int] = ..., in_memory: _Optional[bool] = ..., error_reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("adapters", "fits", "needed_slots", "needed_host_bytes", "leaving")
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_SLOTS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[PlannedAdapter]
    fits: bool
    needed_slots: int
    needed_host_bytes: int
    leaving: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapters: _Optional[_Iterable[_Union[PlannedAdapter, _Mapping]]] = ..., fits: _Optional[bool] = ..., needed_slots: _Optional[int] = ..., needed_host_bytes: _Optional[int] = ..., leaving: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace_s",)
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    def __init__(self, grace_s: _Optional[float] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("running_requests",)
    RUNNING_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    running_requests: int
    def __init__(self, running_requests: _Optional[int] = ...) -> None: ...
