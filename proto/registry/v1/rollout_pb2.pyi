import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RolloutState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLLOUT_STATE_UNSPECIFIED: _ClassVar[RolloutState]
    ROLLOUT_STATE_WATCHING: _ClassVar[RolloutState]
    ROLLOUT_STATE_PROMOTED: _ClassVar[RolloutState]
    ROLLOUT_STATE_ROLLED_BACK: _ClassVar[RolloutState]
    ROLLOUT_STATE_UNDECIDED: _ClassVar[RolloutState]
    ROLLOUT_STATE_STOPPED: _ClassVar[RolloutState]
    ROLLOUT_STATE_SUPERSEDED: _ClassVar[RolloutState]

class Undecided(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNDECIDED_UNSPECIFIED: _ClassVar[Undecided]
    UNDECIDED_KEEP: _ClassVar[Undecided]
    UNDECIDED_END: _ClassVar[Undecided]

class ConditionStanding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_STANDING_UNSPECIFIED: _ClassVar[ConditionStanding]
    CONDITION_STANDING_HOLDS: _ClassVar[ConditionStanding]
    CONDITION_STANDING_BREACHED: _ClassVar[ConditionStanding]
    CONDITION_STANDING_UNKNOWN: _ClassVar[ConditionStanding]
    CONDITION_STANDING_SKIPPED: _ClassVar[ConditionStanding]
ROLLOUT_STATE_UNSPECIFIED: RolloutState
ROLLOUT_STATE_WATCHING: RolloutState
ROLLOUT_STATE_PROMOTED: RolloutState
ROLLOUT_STATE_ROLLED_BACK: RolloutState
ROLLOUT_STATE_UNDECIDED: RolloutState
ROLLOUT_STATE_STOPPED: RolloutState
ROLLOUT_STATE_SUPERSEDED: RolloutState
UNDECIDED_UNSPECIFIED: Undecided
UNDECIDED_KEEP: Undecided
UNDECIDED_END: Undecided
CONDITION_STANDING_UNSPECIFIED: ConditionStanding
CONDITION_STANDING_HOLDS: ConditionStanding
CONDITION_STANDING_BREACHED: ConditionStanding
CONDITION_STANDING_UNKNOWN: ConditionStanding
CONDITION_STANDING_SKIPPED: ConditionStanding

class RolloutPlan(_message.Message):
    __slots__ = ("candidate", "shares", "window_s", "min_answers", "max_not_finite", "max_failure_increase", "max_ttft_ratio", "max_itl_ratio", "latency_slack_s", "if_undecided")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    MIN_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    MAX_NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILURE_INCREASE_FIELD_NUMBER: _ClassVar[int]
    MAX_TTFT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_ITL_RATIO_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SLACK_S_FIELD_NUMBER: _ClassVar[int]
    IF_UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    candidate: int
    shares: _containers.RepeatedScalarFieldContainer[int]
    window_s: float
    min_answers: int
    max_not_finite: int
    max_failure_increase: float
    max_ttft_ratio: float
    max_itl_ratio: float
    latency_slack_s: float
    if_undecided: Undecided
    def __init__(self, candidate: _Optional[int] = ..., shares: _Optional[_Iterable[int]] = ..., window_s: _Optional[float] = ..., min_answers: _Optional[int] = ..., max_not_finite: _Optional[int] = ..., max_failure_increase: _Optional[float] = ..., max_ttft_ratio: _Optional[float] = ..., max_itl_ratio: _Optional[float] = ..., latency_slack_s: _Optional[float] = ..., if_undecided: _Optional[_Union[Undecided, str]] = ...) -> None: ...

class RolloutSide(_message.Message):
    __slots__ = ("version", "answers", "failures", "not_finite", "ttft_p90_s", "itl_p90_s")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    TTFT_P90_S_FIELD_NUMBER: _ClassVar[int]
    ITL_P90_S_FIELD_NUMBER: _ClassVar[int]
    version: int
    answers: int
    failures: int
    not_finite: int
    ttft_p90_s: float
    itl_p90_s: float
    def __init__(self, version: _Optional[int] = ..., answers: _Optional[int] = ..., failures: _Optional[int] = ..., not_finite: _Optional[int] = ..., ttft_p90_s: _Optional[float] = ..., itl_p90_s: _Optional[float] = ...) -> None: ...

class RolloutCondition(_message.Message):
    __slots__ = ("name", "standing", "first", "second", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    standing: ConditionStanding
    first: float
    second: float
    limit: float
    def __init__(self, name: _Optional[str] = ..., standing: _Optional[_Union[ConditionStanding, str]] = ..., first: _Optional[float] = ..., second: _Optional[float] = ..., limit: _Optional[float] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("adapter", "alias", "state", "generation", "plan", "step", "moved_time", "actor", "reason", "elapsed_s", "servers", "first", "second", "conditions")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MOVED_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    state: RolloutState
    generation: int
    plan: RolloutPlan
    step: int
    moved_time: _timestamp_pb2.Timestamp
    actor: str
    reason: str
    elapsed_s: float
    servers: int
    first: RolloutSide
    second: RolloutSide
    conditions: _containers.RepeatedCompositeFieldContainer[RolloutCondition]
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., state: _Optional[_Union[RolloutState, str]] = ..., generation: _Optional[int] = ..., plan: _Optional[_Union[RolloutPlan, _Mapping]] = ..., step: _Optional[int] = ..., moved_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., elapsed_s: _Optional[float] = ..., servers: _Optional[int] = ..., first: _Optional[_Union[RolloutSide, _Mapping]] = ..., second: _Optional[_Union[RolloutSide, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[RolloutCondition, _Mapping]]] = ...) -> None: ...

class StartRolloutRequest(_message.Message):
    __slots__ = ("adapter", "alias", "plan", "expected_generation", "reason")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    plan: RolloutPlan
    expected_generation: int
    reason: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ..., plan: _Optional[_Union[RolloutPlan, _Mapping]] = ..., expected_generation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class StartRolloutResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class GetRolloutRequest(_message.Message):
    __slots__ = ("adapter", "alias")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    alias: str
    def __init__(self, adapter: _Optional[str] = ..., alias: _Optional[str] = ...) -> None: ...

class GetRolloutResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...

class ListRolloutsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRolloutsResponse(_message.Message):
    __slots__ = ("rollouts",)
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[Rollout]
    def __init__(self, rollouts: _Optional[_Iterable[_Union[Rollout, _Mapping]]] = ...) -> None: ...

class StopRolloutRequest(_message.Message):
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

class StopRolloutResponse(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: Rollout
    def __init__(self, rollout: _Optional[_Union[Rollout, _Mapping]] = ...) -> None: ...
