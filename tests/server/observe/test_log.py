"""Log lines carry their facts, one line per record, for people or machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from switchyard.server.observe.log import ROOT_LOGGER, LogFormat, configure


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger(ROOT_LOGGER)
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_json_lines_have_the_facts_as_fields() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    logging.getLogger("switchyard.server.rpc").info("call ended", extra={"method": "/m", "duration_s": 0.5})
    line = json.loads(stream.getvalue())
    assert (line["message"], line["method"], line["duration_s"], line["level"]) == ("call ended", "/m", 0.5, "INFO")
    assert line["time"].endswith("+00:00")
    assert "taskName" not in line


def test_a_traceback_stays_on_its_json_line() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    try:
        raise ValueError("路")
    except ValueError:
        logging.getLogger("switchyard.x").exception("failed")
    [line] = stream.getvalue().splitlines()
    assert "ValueError: 路" in json.loads(line)["traceback"]


def test_facts_cannot_replace_what_a_record_says() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    logging.getLogger("switchyard.x").info("true", extra={"level": "forged", "time": "never"})
    assert json.loads(stream.getvalue())["level"] == "INFO"


def test_people_get_one_short_line() -> None:
    stream = io.StringIO()
    configure(LogFormat.HUMAN, stream=stream)
    logging.getLogger("switchyard.x").warning("slow", extra={"duration_s": 2})
    logging.getLogger("switchyard.x").debug("not shown")
    logging.getLogger("elsewhere").warning("not ours")
    [line] = stream.getvalue().splitlines()
    assert line.endswith("WARNING slow duration_s=2")
