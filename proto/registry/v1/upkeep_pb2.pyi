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
    __slots__ = ("executed", "expired_sessions", "purged_versions", "removed_blobs", "removed_bytes", "orphan_files", "orphan_bytes", "stale_uploads", "stale_bytes", "left_blobs")
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    PURGED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_BLOBS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_FILES_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_BYTES_FIELD_NUMBER: _ClassVar[int]
    STALE_UPLOADS_FIELD_NUMBER: _ClassVar[int]
    STALE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEFT_BLOBS_FIELD_NUMBER: _ClassVar[int]
    executed: bool
    expired_sessions: int
    purged_versions: int
    removed_blobs: int
    removed_bytes: int
    orphan_files: int
    orphan_bytes: int
    stale_uploads: int
    stale_bytes: int
    left_blobs: int
    def __init__(self, executed: _Optional[bool] = ..., expired_sessions: _Optional[int] = ..., purged_versions: _Optional[int] = ..., removed_blobs: _Optional[int] = ..., removed_bytes: _Optional[int] = ..., orphan_files: _Optional[int] = ..., orphan_bytes: _Optional[int] = ..., stale_uploads: _Optional[int] = ..., stale_bytes: _Optional[int] = ..., left_blobs: _Optional[int] = ...) -> None: ...

class ScrubRequest(_message.Message):
    __slots__ = ("limit_bytes", "older_than_s")
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_S_FIELD_NUMBER: _ClassVar[int]
    limit_bytes: int
    older_than_s: float
    def __init__(self, limit_bytes: _Optional[int] = ..., older_than_s: _Optional[float] = ...) -> None: ...

class BadBlob(_message.Message):
    __slots__ = ("digest", "version_refs", "fault")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERSION_REFS_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    version_refs: _containers.RepeatedScalarFieldContainer[str]
    fault: str
    def __init__(self, digest: _Optional[str] = ..., version_refs: _Optional[_Iterable[str]] = ..., fault: _Optional[str] = ...) -> None: ...

class ScrubResponse(_message.Message):
    __slots__ = ("checked_blobs", "checked_bytes", "left_blobs", "bad", "unreadable")
    CHECKED_BLOBS_FIELD_NUMBER: _ClassVar[int]
    CHECKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEFT_BLOBS_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    checked_blobs: int
    checked_bytes: int
    left_blobs: int
    bad: _containers.RepeatedCompositeFieldContainer[BadBlob]
    unreadable: _containers.RepeatedCompositeFieldContainer[BadBlob]
    def __init__(self, checked_blobs: _Optional[int] = ..., checked_bytes: _Optional[int] = ..., left_blobs: _Optional[int] = ..., bad: _Optional[_Iterable[_Union[BadBlob, _Mapping]]] = ..., unreadable: _Optional[_Iterable[_Union[BadBlob, _Mapping]]] = ...) -> None: ...

class ApplyRetentionRequest(_message.Message):
    __slots__ = ("namespace", "execute")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execute: bool
    def __init__(self, namespace: _Optional[str] = ..., execute: _Optional[bool] = ...) -> None: ...

class ApplyRetentionResponse(_message.Message):
    __slots__ = ("deleted_refs", "executed", "deleted_versions", "skipped_refs")
    DELETED_REFS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_FIELD_NUMBER: _ClassVar[int]
    DELETED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_REFS_FIELD_NUMBER: _ClassVar[int]
    deleted_refs: _containers.RepeatedScalarFieldContainer[str]
    executed: bool
    deleted_versions: int
    skipped_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deleted_refs: _Optional[_Iterable[str]] = ..., executed: _Optional[bool] = ..., deleted_versions: _Optional[int] = ..., skipped_refs: _Optional[_Iterable[str]] = ...) -> None: ...

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
    __slots__ = ("events", "has_more")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[AuditEvent]
    has_more: bool
    def __init__(self, events: _Optional[_Iterable[_Union[AuditEvent, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ("known_sequence", "known_hash")
    KNOWN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_HASH_FIELD_NUMBER: _ClassVar[int]
    known_sequence: int
    known_hash: str
    def __init__(self, known_sequence: _Optional[int] = ..., known_hash: _Optional[str] = ...) -> None: ...

class VerifyAuditResponse(_message.Message):
    __slots__ = ("verified_rows", "head_sequence", "head_hash")
    VERIFIED_ROWS_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_HASH_FIELD_NUMBER: _ClassVar[int]
    verified_rows: int
    head_sequence: int
    head_hash: str
    def __init__(self, verified_rows: _Optional[int] = ..., head_sequence: _Optional[int] = ..., head_hash: _Optional[str] = ...) -> None: ...
