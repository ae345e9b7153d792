import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CollectRequest(_message.Message):
    __slots__ = ("execute", "grace_s")
    EXECUTE_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    execute: bool
    grace_s: float
    def __init__(self, execute: _Optional[bool] = ..., grace_s: _Optional[float] = ...) -> None: ...

class CollectResponse(_message.Message):
    __slots__ = ("collected_blobs", "collected_bytes", "expired_sessions", "purged_versions", "executed")
    COLLECTED_BLOBS_FIELD_NUMBER: _ClassVar[int]
    COLLECTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PURGED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    collected_blobs: int
    collected_bytes: int
    expired_sessions: int
    purged_versions: int
    executed: bool
    def __init__(self, collected_blobs: _Optional[int] = ..., collected_bytes: _Optional[int] = ..., expired_sessions: _Optional[int] = ..., purged_versions: _Optional[int] = ..., executed: _Optional[bool] = ...) -> None: ...

class ScrubRequest(_message.Message):
    __slots__ = ("limit_bytes", "older_than_s")
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_S_FIELD_NUMBER: _ClassVar[int]
    limit_bytes: int
    older_than_s: float
    def __init__(self, limit_bytes: _Optional[int] = ..., older_than_s: _Optional[float] = ...) -> None: ...

class ScrubResponse(_message.Message):
    __slots__ = ("verified_blobs", "verified_bytes", "corrupt_digests")
    VERIFIED_BLOBS_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_BYTES_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    verified_blobs: int
    verified_bytes: int
    corrupt_digests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, verified_blobs: _Optional[int] = ..., verified_bytes: _Optional[int] = ..., corrupt_digests: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyRetentionRequest(_message.Message):
    __slots__ = ("namespace", "execute")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execute: bool
    def __init__(self, namespace: _Optional[str] = ..., execute: _Optional[bool] = ...) -> None: ...

class ApplyRetentionResponse(_message.Message):
    __slots__ = ("deleted_refs", "executed")
    DELETED_REFS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    deleted_refs: _containers.RepeatedScalarFieldContainer[str]
    executed: bool
    def __init__(self, deleted_refs: _Optional[_Iterable[str]] = ..., executed: _Optional[bool] = ...) -> None: ...

class ListAuditEventsRequest(_message.Message):
    __slots__ = ("after_sequence", "page_size", "action", "target")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    page_size: int
    action: str
    target: str
    def __init__(self, after_sequence: _Optional[int] = ..., page_size: _Optional[int] = ..., action: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("sequence", "create_time", "actor", "credential", "peer", "request_id", "action", "target", "details_json", "previous_hash", "hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    create_time: _timestamp_pb2.Timestamp
    actor: str
    credential: str
    peer: str
    request_id: str
    action: str
    target: str
    details_json: str
    previous_hash: str
    hash: str
    def __init__(self, sequence: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., credential: _Optional[str] = ..., peer: _Optional[str] = ..., request_id: _Optional[str] = ..., action: _Optional[str] = ..., target: _Optional[str] = ..., details_json: _Optional[str] = ..., previous_hash: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class ListAuditEventsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[AuditEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[AuditEvent, _Mapping]]] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VerifyAuditResponse(_message.Message):
    __slots__ = ("verified_rows", "head_sequence", "head_hash")
    VERIFIED_ROWS_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_HASH_FIELD_NUMBER: _ClassVar[int]
    verified_rows: int
    head_sequence: int
    head_hash: str
    def __init__(self, verified_rows: _Optional[int] = ..., head_sequence: _Optional[int] = ..., head_hash: _Optional[str] = ...) -> None: ...
