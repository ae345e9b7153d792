"""The log format: one line per record, for people or for machines.

Loggers are named after their module and carry facts in `extra`; the format
decides how they look. Nothing here, and nothing that logs, writes prompt text.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TextIO

ROOT_LOGGER: Final = "switchyard"

CALL_ID: ContextVar[str] = ContextVar("call_id", default="")
"""Names the call that a record belongs to; empty outside calls."""

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How a record is written."""

    HUMAN = "human"
    JSON = "json"


def configure(log_format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Sends the project's records to one stream, and nothing else's.

    Args:
        log_format: how a record is written.
        level: least severe level that is written.
        stream: where to; standard error when None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else HumanFormatter())
    logger = logging.getLogger(ROOT_LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What a caller put into `extra`, and the call it happened in."""
    call_id = CALL_ID.get()
    found: dict[str, object] = {"call": call_id} if call_id else {}
    return found | {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the facts as its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Writes one record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in facts(record).items() if name not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level, message, then the facts as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Writes one record."""
        clock = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        pairs = "".join(f" {name}={value}" for name, value in facts(record).items())
        line = f"{clock} {record.levelname:<7} {record.getMessage()}{pairs}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line
