"""How the command line says that something failed, and with which exit code.

0    done
1    refused or failed; the reason and every fault are on standard error
2    wrong usage
3    no server answered at the address
130  interrupted
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from rich.console import Console
from rich.text import Text

from switchyard.clients.errors import ClientError
from switchyard.clients.render import safe

DONE: Final = 0
FAILED: Final = 1
INTERRUPTED: Final = 130


@runtime_checkable
class _Expected(Protocol):
    """What the error trees of all rooms have in common."""

    reason: str
    retryable: bool


def is_expected(error: BaseException) -> bool:
    """Whether `error` is one that a room raises on purpose; anything else is a bug and keeps its traceback."""
    return isinstance(error, _Expected) and type(error).__module__.startswith("switchyard.")


def exit_status(error: BaseException) -> int:
    """The exit code that `error` stands for."""
    return error.exit_status if isinstance(error, ClientError) else FAILED


def show(error: BaseException, console: Console) -> None:
    """Prints reason, message and every fault; no traceback."""
    reason = getattr(error, "reason", type(error).__name__)
    faults = getattr(error, "faults", ())
    message = str(error)
    if faults:
        # The registry's message repeats the faults below its first line, the server's within it.
        message = message.partition("\n")[0]
    console.print(Text.assemble(("error ", "bold red"), (safe(reason), "bold")), soft_wrap=True)
    if not faults or not all(fault.message in message for fault in faults):
        console.print(Text(safe(message, lines=True)), soft_wrap=True)
    for fault in faults:
        console.print(Text(f"  {safe(str(fault))}"), soft_wrap=True)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        console.print(Text(f"try again in {retry_after_s:.1f} s"), style="dim", soft_wrap=True)
