import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATE_UNSPECIFIED: _ClassVar[VersionState]
    VERSION_STATE_READY: _ClassVar[VersionState]
    VERSION_STATE_DEPRECATED: _ClassVar[VersionState]
    VERSION_STATE_YANKED: _ClassVar[VersionState]
    VERSION_STATE_QUARANTINED: _ClassVar[VersionState]
    VERSION_STATE_DELETED: _ClassVar[VersionState]
    VERSION_STATE_PURGED: _ClassVar[VersionState]

class AliasEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIAS_EVENT_KIND_UNSPECIFIED: _ClassVar[AliasEventKind]
    ALIAS_EVENT_KIND_SET: _ClassVar[AliasEventKind]
    ALIAS_EVENT_KIND_ROLLBACK: _ClassVar[AliasEventKind]
    ALIAS_EVENT_KIND_CANARY: _ClassVar[AliasEventKind]
    ALIAS_EVENT_KIND_DELETE: _ClassVar[AliasEventKind]

class VersionAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_ACTION_UNSPECIFIED: _ClassVar[VersionAction]
    VERSION_ACTION_REINSTATE: _ClassVar[VersionAction]
    VERSION_ACTION_DEPRECATE: _ClassVar[VersionAction]
    VERSION_ACTION_YANK: _ClassVar[VersionAction]
    VERSION_ACTION_QUARANTINE: _ClassVar[VersionAction]
    VERSION_ACTION_RELEASE: _ClassVar[VersionAction]
    VERSION_ACTION_DELETE: _ClassVar[VersionAction]
    VERSION_ACTION_UNDELETE: _ClassVar[VersionAction]
VERSION_STATE_UNSPECIFIED: VersionState
VERSION_STATE_READY: VersionState
VERSION_STATE_DEPRECATED: VersionState
VERSION_STATE_YANKED: VersionState
VERSION_STATE_QUARANTINED: VersionState
VERSION_STATE_DELETED: VersionState
VERSION_STATE_PURGED: VersionState
ALIAS_EVENT_KIND_UNSPECIFIED: AliasEventKind
ALIAS_EVENT_KIND_SET: AliasEventKind
ALIAS_EVENT_KIND_ROLLBACK: AliasEventKind
ALIAS_EVENT_KIND_CANARY: AliasEventKind
ALIAS_EVENT_KIND_DELETE: AliasEventKind
VERSION_ACTION_UNSPECIFIED: VersionAction
VERSION_ACTION_REINSTATE: VersionAction
VERSION_ACTION_DEPRECATE: VersionAction
VERSION_ACTION_YANK: VersionAction
VERSION_ACTION_QUARANTINE: VersionAction
VERSION_ACTION_RELEASE: VersionAction
VERSION_ACTION_DELETE: VersionAction
VERSION_ACTION_UNDELETE: VersionAction

class FileRef(_message.Message):
    __slots__ = ("path", "digest", "size_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    digest: str
    size_bytes: int
    def __init__(self, path: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Quantization(_message.Message):
    __slots__ = ("method", "double_quantization", "compute_dtype")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    method: str
    double_quantization: bool
    compute_dtype: str
    def __init__(self, method: _Optional[str] = ..., double_quantization: _Optional[bool] = ..., compute_dtype: _Optional[str] = ...) -> None: ...

class BaseModel(_message.Message):
    __slots__ = ("digest", "name", "config_digest", "weights_digest", "tokenizer_digest", "chat_template_digest", "architecture", "vocab_size")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    name: str
    config_digest: str
    weights_digest: str
    tokenizer_digest: str
    chat_template_digest: str
    architecture: str
    vocab_size: int
    def __init__(self, digest: _Optional[str] = ..., name: _Optional[str] = ..., config_digest: _Optional[str] = ..., weights_digest: _Optional[str] = ..., tokenizer_digest: _Optional[str] = ..., chat_template_digest: _Optional[str] = ..., architecture: _Optional[str] = ..., vocab_size: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "dataset_digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    dataset_digest: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., dataset_digest: _Optional[str] = ...) -> None: ...

class Lineage(_message.Message):
    __slots__ = ("dataset_digest", "recipe_digest", "code_commit", "training_quantization", "parents", "metrics", "environment")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    RECIPE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CODE_COMMIT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    dataset_digest: str
    recipe_digest: str
    code_commit: str
    training_quantization: Quantization
    parents: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    environment: _containers.ScalarMap[str, str]
    def __init__(self, dataset_digest: _Optional[str] = ..., recipe_digest: _Optional[str] = ..., code_commit: _Optional[str] = ..., training_quantization: _Optional[_Union[Quantization, _Mapping]] = ..., parents: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., environment: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AdapterShape(_message.Message):
    __slots__ = ("rank", "target_modules", "features", "dtype", "parameter_count", "weights_bytes")
    RANK_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODULES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    target_modules: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.RepeatedScalarFieldContainer[str]
    dtype: str
    parameter_count: int
    weights_bytes: int
    def __init__(self, rank: _Optional[int] = ..., target_modules: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ..., dtype: _Optional[str] = ..., parameter_count: _Optional[int] = ..., weights_bytes: _Optional[int] = ...) -> None: ...

class AdapterVersion(_message.Message):
    __slots__ = ("namespace", "adapter", "version", "digest", "base_model", "shape", "lineage", "files", "publisher", "note", "create_time", "aliases", "warnings", "state", "state_reason", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    adapter: str
    version: int
    digest: str
    base_model: BaseModel
    shape: AdapterShape
    lineage: Lineage
    files: _containers.RepeatedCompositeFieldContainer[FileRef]
    publisher: str
    note: str
    create_time: _timestamp_pb2.Timestamp
    aliases: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    state: VersionState
    state_reason: str
    tags: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., adapter: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., base_model: _Optional[_Union[BaseModel, _Mapping]] = ..., shape: _Optional[_Union[AdapterShape, _Mapping]] = ..., lineage: _Optional[_Union[Lineage, _Mapping]] = ..., files: _Optional[_Iterable[_Union[FileRef, _Mapping]]] = ..., publisher: _Optional[str] = ..., note: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., aliases: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ..., state: _Optional[_Union[VersionState, str]] = ..., state_reason: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CanarySplit(_message.Message):
    __slots__ = ("version", "digest", "percent")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    percent: int
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., percent: _Optional[int] = ...) -> None: ...

class Alias(_message.Message):
    __slots__ = ("namespace", "adapter", "name", "version", "digest", "generation", "updated_by", "update_time", "canary")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    UPDATED_BY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    adapter: str
    name: str
    version: int
    digest: str
    generation: int
    updated_by: str
    update_time: _timestamp_pb2.Timestamp
    canary: CanarySplit
    def __init__(self, namespace: _Optional[str] = ..., adapter: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., generation: _Optional[int] = ..., updated_by: _Optional[str] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., canary: _Optional[_Union[CanarySplit, _Mapping]] = ...) -> None: ...

class AliasEvent(_message.Message):
    __slots__ = ("generation", "from_version", "to_version", "actor", "reason", "create_time", "kind", "canary_version", "canary_percent", "evidence_json")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FROM_VERSION_FIELD_NUMBER: _ClassVar[int]
    TO_VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CANARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CANARY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    generation: int
    from_version: int
    to_version: int
    actor: str
    reason: str
    create_time: _timestamp_pb2.Timestamp
    kind: AliasEventKind
    canary_version: int
    canary_percent: int
    evidence_json: str
    def __init__(self, generation: _Optional[int] = ..., from_version: _Optional[int] = ..., to_version: _Optional[int] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[AliasEventKind, str]] = ..., canary_version: _Optional[int] = ..., canary_percent: _Optional[int] = ..., evidence_json: _Optional[str] = ...) -> None: ...

class AliasMove(_message.Message):
    __slots__ = ("alias", "previous_version")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    alias: Alias
    previous_version: int
    def __init__(self, alias: _Optional[_Union[Alias, _Mapping]] = ..., previous_version: _Optional[int] = ...) -> None: ...

class AliasPolicy(_message.Message):
    __slots__ = ("protected", "required_statements", "distinct_promoter", "signers", "min_approvals")
    PROTECTED_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_PROMOTER_FIELD_NUMBER: _ClassVar[int]
    SIGNERS_FIELD_NUMBER: _ClassVar[int]
    MIN_APPROVALS_FIELD_NUMBER: _ClassVar[int]
    protected: bool
    required_statements: _containers.RepeatedScalarFieldContainer[str]
    distinct_promoter: bool
    signers: _containers.RepeatedScalarFieldContainer[str]
    min_approvals: int
    def __init__(self, protected: _Optional[bool] = ..., required_statements: _Optional[_Iterable[str]] = ..., distinct_promoter: _Optional[bool] = ..., signers: _Optional[_Iterable[str]] = ..., min_approvals: _Optional[int] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("id", "subject_digest", "kind", "digest", "size_bytes", "signer", "actor", "create_time", "summary_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    subject_digest: str
    kind: str
    digest: str
    size_bytes: int
    signer: str
    actor: str
    create_time: _timestamp_pb2.Timestamp
    summary_json: str
    def __init__(self, id: _Optional[str] = ..., subject_digest: _Optional[str] = ..., kind: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., signer: _Optional[str] = ..., actor: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., summary_json: _Optional[str] = ...) -> None: ...

class NamespacePolicy(_message.Message):
    __slots__ = ("keep_last", "keep_days", "protected_aliases", "required_statements", "distinct_promoter", "signers", "min_approvals", "trusted_keys", "signed_publish")
    KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    KEEP_DAYS_FIELD_NUMBER: _ClassVar[int]
    PROTECTED_ALIASES_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    DISTINCT_PROMOTER_FIELD_NUMBER: _ClassVar[int]
    SIGNERS_FIELD_NUMBER: _ClassVar[int]
    MIN_APPROVALS_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_KEYS_FIELD_NUMBER: _ClassVar[int]
    SIGNED_PUBLISH_FIELD_NUMBER: _ClassVar[int]
    keep_last: int
    keep_days: float
    protected_aliases: _containers.RepeatedScalarFieldContainer[str]
    required_statements: _containers.RepeatedScalarFieldContainer[str]
    distinct_promoter: bool
    signers: _containers.RepeatedScalarFieldContainer[str]
    min_approvals: int
    trusted_keys: _containers.RepeatedScalarFieldContainer[str]
    signed_publish: bool
    def __init__(self, keep_last: _Optional[int] = ..., keep_days: _Optional[float] = ..., protected_aliases: _Optional[_Iterable[str]] = ..., required_statements: _Optional[_Iterable[str]] = ..., distinct_promoter: _Optional[bool] = ..., signers: _Optional[_Iterable[str]] = ..., min_approvals: _Optional[int] = ..., trusted_keys: _Optional[_Iterable[str]] = ..., signed_publish: _Optional[bool] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ("name", "create_time", "quota_bytes", "used_bytes", "policy")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    name: str
    create_time: _timestamp_pb2.Timestamp
    quota_bytes: int
    used_bytes: int
    policy: NamespacePolicy
    def __init__(self, name: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., quota_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., policy: _Optional[_Union[NamespacePolicy, _Mapping]] = ...) -> None: ...

class AdapterSummary(_message.Message):
    __slots__ = ("namespace", "adapter", "latest_version", "aliases", "base_digest", "update_time", "description", "owner", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    LATEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    adapter: str
    latest_version: int
    aliases: _containers.RepeatedCompositeFieldContainer[Alias]
    base_digest: str
    update_time: _timestamp_pb2.Timestamp
    description: str
    owner: str
    tags: _containers.ScalarMap[str, str]
    def __init__(self, namespace: _Optional[str] = ..., adapter: _Optional[str] = ..., latest_version: _Optional[int] = ..., aliases: _Optional[_Iterable[_Union[Alias, _Mapping]]] = ..., base_digest: _Optional[str] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., description: _Optional[str] = ..., owner: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BeginPublishRequest(_message.Message):
    __slots__ = ("adapter", "files", "base_digest", "lineage", "idempotency_key", "note", "want_upload_urls")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    WANT_UPLOAD_URLS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    files: _containers.RepeatedCompositeFieldContainer[FileRef]
    base_digest: str
    lineage: Lineage
    idempotency_key: str
    note: str
    want_upload_urls: bool
    def __init__(self, adapter: _Optional[str] = ..., files: _Optional[_Iterable[_Union[FileRef, _Mapping]]] = ..., base_digest: _Optional[str] = ..., lineage: _Optional[_Union[Lineage, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., note: _Optional[str] = ..., want_upload_urls: _Optional[bool] = ...) -> None: ...

class PresignedUpload(_message.Message):
    __slots__ = ("digest", "url", "expire_time", "headers")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    url: str
    expire_time: _timestamp_pb2.Timestamp
    headers: _containers.ScalarMap[str, str]
    def __init__(self, digest: _Optional[str] = ..., url: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., headers: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BeginPublishResponse(_message.Message):
    __slots__ = ("session_id", "missing_digests", "chunk_bytes", "expire_time", "committed", "presigned_uploads")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MISSING_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    PRESIGNED_UPLOADS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    missing_digests: _containers.RepeatedScalarFieldContainer[str]
    chunk_bytes: int
    expire_time: _timestamp_pb2.Timestamp
    committed: AdapterVersion
    presigned_uploads: _containers.RepeatedCompositeFieldContainer[PresignedUpload]
    def __init__(self, session_id: _Optional[str] = ..., missing_digests: _Optional[_Iterable[str]] = ..., chunk_bytes: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., committed: _Optional[_Union[AdapterVersion, _Mapping]] = ..., presigned_uploads: _Optional[_Iterable[_Union[PresignedUpload, _Mapping]]] = ...) -> None: ...

class UploadBlobRequest(_message.Message):
    __slots__ = ("session_id", "digest", "offset", "data", "crc32")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    digest: str
    offset: int
    data: bytes
    crc32: int
    def __init__(self, session_id: _Optional[str] = ..., digest: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class UploadBlobResponse(_message.Message):
    __slots__ = ("committed_bytes", "complete")
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    committed_bytes: int
    complete: bool
    def __init__(self, committed_bytes: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class ConfirmUploadRequest(_message.Message):
    __slots__ = ("session_id", "digest")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    digest: str
    def __init__(self, session_id: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class ConfirmUploadResponse(_message.Message):
    __slots__ = ("committed_bytes", "complete")
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    committed_bytes: int
    complete: bool
    def __init__(self, committed_bytes: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class QueryUploadRequest(_message.Message):
    __slots__ = ("session_id", "digest")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    digest: str
    def __init__(self, session_id: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class QueryUploadResponse(_message.Message):
    __slots__ = ("committed_bytes", "complete")
    COMMITTED_BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    committed_bytes: int
    complete: bool
    def __init__(self, committed_bytes: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class CommitPublishRequest(_message.Message):
    __slots__ = ("session_id", "validate_only", "set_alias", "expected_generation", "tags", "signature")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    SET_ALIAS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    validate_only: bool
    set_alias: str
    expected_generation: int
    tags: _containers.ScalarMap[str, str]
    signature: bytes
    def __init__(self, session_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., set_alias: _Optional[str] = ..., expected_generation: _Optional[int] = ..., tags: _Optional[_Mapping[str, str]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class CommitPublishResponse(_message.Message):
    __slots__ = ("version", "warnings")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class AbortPublishRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class AbortPublishResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("expire_time",)
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("ref", "base_digest", "session_key")
    REF_FIELD_NUMBER: _ClassVar[int]
    BASE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    ref: str
    base_digest: str
    session_key: str
    def __init__(self, ref: _Optional[str] = ..., base_digest: _Optional[str] = ..., session_key: _Optional[str] = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ("version", "alias", "alias_generation", "canary")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    ALIAS_GENERATION_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    alias: str
    alias_generation: int
    canary: bool
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ..., alias: _Optional[str] = ..., alias_generation: _Optional[int] = ..., canary: _Optional[bool] = ...) -> None: ...

class GetVersionRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    def __init__(self, ref: _Optional[str] = ...) -> None: ...

class GetVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ...) -> None: ...

class GetAdapterRequest(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    def __init__(self, adapter: _Optional[str] = ...) -> None: ...

class GetAdapterResponse(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: AdapterSummary
    def __init__(self, adapter: _Optional[_Union[AdapterSummary, _Mapping]] = ...) -> None: ...

class ListAdaptersRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAdaptersResponse(_message.Message):
    __slots__ = ("adapters", "next_page_token")
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterSummary]
    next_page_token: str
    def __init__(self, adapters: _Optional[_Iterable[_Union[AdapterSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("adapter", "page_size", "page_token", "include_deleted")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_DELETED_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    page_size: int
    page_token: str
    include_deleted: bool
    def __init__(self, adapter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., include_deleted: _Optional[bool] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[AdapterVersion]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[AdapterVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DownloadBlobRequest(_message.Message):
    __slots__ = ("digest", "offset", "want_url")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    WANT_URL_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    want_url: bool
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ..., want_url: _Optional[bool] = ...) -> None: ...

class DownloadBlobResponse(_message.Message):
    __slots__ = ("data", "url", "url_expire_time")
    DATA_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    URL_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    url: str
    url_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, data: _Optional[bytes] = ..., url: _Optional[str] = ..., url_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SearchVersionsRequest(_message.Message):
    __slots__ = ("query", "page_size", "page_token")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    query: str
    page_size: int
    page_token: str
    def __init__(self, query: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class SearchVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[AdapterVersion]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[AdapterVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CompareVersionsRequest(_message.Message):
    __slots__ = ("ref", "other_ref")
    REF_FIELD_NUMBER: _ClassVar[int]
    OTHER_REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    other_ref: str
    def __init__(self, ref: _Optional[str] = ..., other_ref: _Optional[str] = ...) -> None: ...

class FieldChange(_message.Message):
    __slots__ = ("field", "before_json", "after_json")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    BEFORE_JSON_FIELD_NUMBER: _ClassVar[int]
    AFTER_JSON_FIELD_NUMBER: _ClassVar[int]
    field: str
    before_json: str
    after_json: str
    def __init__(self, field: _Optional[str] = ..., before_json: _Optional[str] = ..., after_json: _Optional[str] = ...) -> None: ...

class ModuleDiff(_message.Message):
    __slots__ = ("module", "norm", "other_norm", "rank", "other_rank", "cosine")
    MODULE_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    OTHER_NORM_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    OTHER_RANK_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    module: str
    norm: float
    other_norm: float
    rank: float
    other_rank: float
    cosine: float
    def __init__(self, module: _Optional[str] = ..., norm: _Optional[float] = ..., other_norm: _Optional[float] = ..., rank: _Optional[float] = ..., other_rank: _Optional[float] = ..., cosine: _Optional[float] = ...) -> None: ...

class CompareVersionsResponse(_message.Message):
    __slots__ = ("version", "other_version", "config", "lineage", "modules")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OTHER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    other_version: AdapterVersion
    config: _containers.RepeatedCompositeFieldContainer[FieldChange]
    lineage: _containers.RepeatedCompositeFieldContainer[FieldChange]
    modules: _containers.RepeatedCompositeFieldContainer[ModuleDiff]
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ..., other_version: _Optional[_Union[AdapterVersion, _Mapping]] = ..., config: _Optional[_Iterable[_Union[FieldChange, _Mapping]]] = ..., lineage: _Optional[_Iterable[_Union[FieldChange, _Mapping]]] = ..., modules: _Optional[_Iterable[_Union[ModuleDiff, _Mapping]]] = ...) -> None: ...

class ListImpactedVersionsRequest(_message.Message):
    __slots__ = ("digest", "page_size", "page_token")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    digest: str
    page_size: int
    page_token: str
    def __init__(self, digest: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ImpactedVersion(_message.Message):
    __slots__ = ("version", "relation", "distance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RELATION_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    relation: str
    distance: int
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ..., relation: _Optional[str] = ..., distance: _Optional[int] = ...) -> None: ...

class ListImpactedVersionsResponse(_message.Message):
    __slots__ = ("versions", "next_page_token")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ImpactedVersion]
    next_page_token: str
    def __init__(self, versions: _Optional[_Iterable[_Union[ImpactedVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelCardRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: str
    def __init__(self, ref: _Optional[str] = ...) -> None: ...

class GetModelCardResponse(_message.Message):
    __slots__ = ("markdown",)
    MARKDOWN_FIELD_NUMBER: _ClassVar[int]
    markdown: str
    def __init__(self, markdown: _Optional[str] = ...) -> None: ...

class SetVersionStateRequest(_message.Message):
    __slots__ = ("adapter", "version", "action", "reason", "move_aliases_to")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MOVE_ALIASES_TO_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    version: int
    action: VersionAction
    reason: str
    move_aliases_to: int
    def __init__(self, adapter: _Optional[str] = ..., version: _Optional[int] = ..., action: _Optional[_Union[VersionAction, str]] = ..., reason: _Optional[str] = ..., move_aliases_to: _Optional[int] = ...) -> None: ...

class SetVersionStateResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ...) -> None: ...

class TagVersionRequest(_message.Message):
    __slots__ = ("adapter", "version", "set_tags", "remove_tags")
    class SetTagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SET_TAGS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TAGS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    version: int
    set_tags: _containers.ScalarMap[str, str]
    remove_tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapter: _Optional[str] = ..., version: _Optional[int] = ..., set_tags: _Optional[_Mapping[str, str]] = ..., remove_tags: _Optional[_Iterable[str]] = ...) -> None: ...

class TagVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: AdapterVersion
    def __init__(self, version: _Optional[_Union[AdapterVersion, _Mapping]] = ...) -> None: ...

class TagAdapterRequest(_message.Message):
    __slots__ = ("adapter", "set_tags", "remove_tags")
    class SetTagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    SET_TAGS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TAGS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    set_tags: _containers.ScalarMap[str, str]
    remove_tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, adapter: _Optional[str] = ..., set_tags: _Optional[_Mapping[str, str]] = ..., remove_tags: _Optional[_Iterable[str]] = ...) -> None: ...

class TagAdapterResponse(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: AdapterSummary
    def __init__(self, adapter: _Optional[_Union[AdapterSummary, _Mapping]] = ...) -> None: ...

class UpdateAdapterRequest(_message.Message):
    __slots__ = ("adapter", "description", "owner")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    description: str
    owner: str
    def __init__(self, adapter: _Optional[str] = ..., description: _Optional[str] = ..., owner: _Optional[str] = ...) -> None: ...

class UpdateAdapterResponse(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: AdapterSummary
    def __init__(self, adapter: _Optional[_Union[AdapterSummary, _Mapping]] = ...) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("adapter", "alias", "version", "expected_generation", "actor", "reason", "evidence_json")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    version: int
    expected_generation: int
    actor: str
    reason: str
    evidence_json: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., expected_generation: _Optional[int] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., evidence_json: _Optional[str] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ("alias", "previous_version")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    alias: Alias
    previous_version: int
    def __init__(self, alias: _Optional[_Union[Alias, _Mapping]] = ..., previous_version: _Optional[int] = ...) -> None: ...

class ListAliasHistoryRequest(_message.Message):
    __slots__ = ("adapter", "alias", "page_size", "page_token")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    page_size: int
    page_token: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAliasHistoryResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[AliasEvent]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[AliasEvent, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListAliasesRequest(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    def __init__(self, adapter: _Optional[str] = ...) -> None: ...

class ListAliasesResponse(_message.Message):
    __slots__ = ("aliases",)
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedCompositeFieldContainer[Alias]
    def __init__(self, aliases: _Optional[_Iterable[_Union[Alias, _Mapping]]] = ...) -> None: ...

class AliasTarget(_message.Message):
    __slots__ = ("adapter", "alias", "version", "expected_generation")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    version: int
    expected_generation: int
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., expected_generation: _Optional[int] = ...) -> None: ...

class BatchSetAliasesRequest(_message.Message):
    __slots__ = ("targets", "reason")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[AliasTarget]
    reason: str
    def __init__(self, targets: _Optional[_Iterable[_Union[AliasTarget, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class BatchSetAliasesResponse(_message.Message):
    __slots__ = ("moves",)
    MOVES_FIELD_NUMBER: _ClassVar[int]
    moves: _containers.RepeatedCompositeFieldContainer[AliasMove]
    def __init__(self, moves: _Optional[_Iterable[_Union[AliasMove, _Mapping]]] = ...) -> None: ...

class RollbackAliasRequest(_message.Message):
    __slots__ = ("adapter", "alias", "expected_generation", "reason", "evidence_json")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    expected_generation: int
    reason: str
    evidence_json: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., expected_generation: _Optional[int] = ..., reason: _Optional[str] = ..., evidence_json: _Optional[str] = ...) -> None: ...

class RollbackAliasResponse(_message.Message):
    __slots__ = ("move",)
    MOVE_FIELD_NUMBER: _ClassVar[int]
    move: AliasMove
    def __init__(self, move: _Optional[_Union[AliasMove, _Mapping]] = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("adapter", "alias", "expected_generation", "reason")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    expected_generation: int
    reason: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., expected_generation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: AliasEvent
    def __init__(self, event: _Optional[_Union[AliasEvent, _Mapping]] = ...) -> None: ...

class SetCanaryRequest(_message.Message):
    __slots__ = ("adapter", "alias", "version", "percent", "expected_generation", "reason", "evidence_json")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_JSON_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    version: int
    percent: int
    expected_generation: int
    reason: str
    evidence_json: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., version: _Optional[int] = ..., percent: _Optional[int] = ..., expected_generation: _Optional[int] = ..., reason: _Optional[str] = ..., evidence_json: _Optional[str] = ...) -> None: ...

class SetCanaryResponse(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: Alias
    def __init__(self, alias: _Optional[_Union[Alias, _Mapping]] = ...) -> None: ...

class GetAliasPolicyRequest(_message.Message):
    __slots__ = ("adapter", "alias")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ...) -> None: ...

class GetAliasPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: AliasPolicy
    def __init__(self, policy: _Optional[_Union[AliasPolicy, _Mapping]] = ...) -> None: ...

class SetAliasPolicyRequest(_message.Message):
    __slots__ = ("adapter", "alias", "policy")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    policy: AliasPolicy
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., policy: _Optional[_Union[AliasPolicy, _Mapping]] = ...) -> None: ...

class SetAliasPolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: AliasPolicy
    def __init__(self, policy: _Optional[_Union[AliasPolicy, _Mapping]] = ...) -> None: ...

class AttachStatementRequest(_message.Message):
    __slots__ = ("ref", "kind", "payload")
    REF_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ref: str
    kind: str
    payload: bytes
    def __init__(self, ref: _Optional[str] = ..., kind: _Optional[str] = ..., payload: _Optional[bytes] = ...) -> None: ...

class AttachStatementResponse(_message.Message):
    __slots__ = ("statement",)
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    statement: Statement
    def __init__(self, statement: _Optional[_Union[Statement, _Mapping]] = ...) -> None: ...

class ListStatementsRequest(_message.Message):
    __slots__ = ("ref", "page_size", "page_token")
    REF_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ref: str
    page_size: int
    page_token: str
    def __init__(self, ref: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListStatementsResponse(_message.Message):
    __slots__ = ("statements", "next_page_token")
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    next_page_token: str
    def __init__(self, statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReadStatementRequest(_message.Message):
    __slots__ = ("ref", "statement_id")
    REF_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ref: str
    statement_id: str
    def __init__(self, ref: _Optional[str] = ..., statement_id: _Optional[str] = ...) -> None: ...

class ReadStatementResponse(_message.Message):
    __slots__ = ("statement", "payload")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    statement: Statement
    payload: bytes
    def __init__(self, statement: _Optional[_Union[Statement, _Mapping]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class GetNamespaceRequest(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    def __init__(self, namespace: _Optional[str] = ...) -> None: ...

class GetNamespaceResponse(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class ListNamespacesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNamespacesResponse(_message.Message):
    __slots__ = ("namespaces", "next_page_token")
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespaces: _containers.RepeatedCompositeFieldContainer[Namespace]
    next_page_token: str
    def __init__(self, namespaces: _Optional[_Iterable[_Union[Namespace, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateNamespaceRequest(_message.Message):
    __slots__ = ("namespace", "quota_bytes", "clear_quota", "policy")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    CLEAR_QUOTA_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    quota_bytes: int
    clear_quota: bool
    policy: NamespacePolicy
    def __init__(self, namespace: _Optional[str] = ..., quota_bytes: _Optional[int] = ..., clear_quota: _Optional[bool] = ..., policy: _Optional[_Union[NamespacePolicy, _Mapping]] = ...) -> None: ...

class UpdateNamespaceResponse(_message.Message):
    __slots__ = ("namespace",)
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ...) -> None: ...

class ListBaseModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListBaseModelsResponse(_message.Message):
    __slots__ = ("base_models",)
    BASE_MODELS_FIELD_NUMBER: _ClassVar[int]
    base_models: _containers.RepeatedCompositeFieldContainer[BaseModel]
    def __init__(self, base_models: _Optional[_Iterable[_Union[BaseModel, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("after_revision", "namespace", "adapter")
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    namespace: str
    adapter: str
    def __init__(self, after_revision: _Optional[int] = ..., namespace: _Optional[str] = ..., adapter: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("revision", "kind", "namespace", "adapter", "payload_json", "create_time")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    revision: int
    kind: str
    namespace: str
    adapter: str
    payload_json: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, revision: _Optional[int] = ..., kind: _Optional[str] = ..., namespace: _Optional[str] = ..., adapter: _Optional[str] = ..., payload_json: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
