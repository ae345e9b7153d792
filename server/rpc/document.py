"""Writes `docs/errors.md` from the tables: `python -P -m switchyard.server.rpc.document docs/errors.md`."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from switchyard.registry.errors import RegistryError
from switchyard.server.calls.codes import CODES, FAULT_CODES
from switchyard.server.calls.field_reasons import FIELD_MEANINGS
from switchyard.server.errors import BaseModelError, ServerError

_HEADER = """\
# Errors

Generated from `server/calls/codes.py` and the two error trees; a test keeps page and code together.

Before a request is accepted, a failure is a gRPC status. After acceptance, a stream carries exactly one terminal
event, `finished` or `error`; the `error` event has the same code, reason and message as the status would, and the
stream itself ends with `OK`. `GenerateOnce` has no stream, so there every failure is a status.

A status carries, in `grpc-status-details-bin`:

- `google.rpc.ErrorInfo`: `reason` from the tables below, `domain` `switchyard`, and in `metadata` `retryable` and
  facts such as `current_generation`, `committed_bytes` or `cause_reason`;
- `google.rpc.BadRequest` when faults can be listed: every fault, with field, reason and description. They are cut to
  what fits HTTP/2 trailers; a last entry `TRUNCATED` says how many are left out;
- `google.rpc.RetryInfo` when the error says when to try again.

When all faults of a request or a file share one reason, that is the reason of the status; else it is `FIELD_INVALID`
or `VERSION_REFUSED`. A status `INTERNAL` is a bug: its `incident` is in the server's log together with a traceback.
`RESOURCE_EXHAUSTED` without details comes from gRPC itself: a message above 4 MiB or metadata above 16 KiB.

"""

_TABLE = "| Reason | Status | HTTP | Try again | When |\n|---|---|---|---|---|\n"


def errors_page() -> str:
    """The page, ready to be written."""
    parts = [
        _HEADER,
        "## Generating and operating\n\n",
        _errors(ServerError),
        "\n## The registry\n\n",
        _errors(RegistryError),
        "\n## Fields of a request\n\n| Reason | What is wrong |\n|---|---|\n",
        *(f"| `{reason}` | {meaning} |\n" for reason, meaning in FIELD_MEANINGS.items()),
        "\n## Reasons that change the status\n\n",
        "When every fault behind an error has one of these reasons, the status says so:\n\n",
        "| Reason | Status |\n|---|---|\n",
        *(f"| `{reason}` | `{code.name}` |\n" for reason, code in sorted(FAULT_CODES.items())),
    ]
    return "".join(parts)


def _errors(root: type[ServerError] | type[RegistryError]) -> str:
    rows = []
    for cls, code in CODES.items():
        # Errors of the base model end the start of a server; no caller sees them.
        if issubclass(cls, root) and not issubclass(cls, BaseModelError):
            when = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
            retry = "yes" if cls.retryable else "no"
            rows.append(f"| `{cls.reason}` | `{code.name}` | {code.http} | {retry} | {when} |\n")
    return _TABLE + "".join(rows)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(errors_page(), encoding="utf-8")
