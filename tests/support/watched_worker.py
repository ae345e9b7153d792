"""The validation worker as it is, with somebody who watches what it touches.

Whatever a hostile file makes it do that a reader of files has no business with ends the process with a
status of its own: connecting, starting programs, importing, unpickling, compiling, writing, opening what it
was not given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from switchyard.registry.validation.validator import ValidationOutcome, ValidationRequest
from switchyard.registry.validation.worker import validate_in_worker

TOUCHED, GREW = 97, 98
_ALLOWANCE_BYTES = 200 << 20

_PROGRAM = """
import os, sys
import switchyard.registry.validation.worker as worker

sys.path.insert(0, {planted!r})
room = os.path.dirname(os.path.dirname(worker.__file__))
readable = ({readable!r}, "/proc/self/status", sys.prefix, sys.base_prefix, room)
known = sys.stdlib_module_names | {{"numpy", "switchyard"}}
forbidden = ("socket.", "subprocess.", "os.", "pickle.", "shutil.", "ftplib.", "http.", "urllib.", "compile")
harmless = ("os.listdir", "os.scandir", "os.fwalk", "os.walk")


def touched(event, arguments):
    if event == "import":
        return arguments[0].partition(".")[0] not in known
    if event == "open":
        path, _, flags = arguments
        if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return True
        return not isinstance(path, int) and not os.fsdecode(path).startswith(readable)
    if event.startswith("ctypes."):
        # How the worker leaves the network; nothing else in it calls into C by name.
        return not (arguments and arguments[-1] in (None, "unshare")) and event != "ctypes.get_errno"
    return event.startswith(forbidden) and event not in harmless


def watch(event, arguments):
    if touched(event, arguments):
        os.write(2, f"touched: {{event}} {{arguments!a}}".encode()[:400])
        os._exit({touched})


sys.addaudithook(watch)
{work}
sys.stdout.flush()
# Not ru_maxrss: that also counts what the parent had when it started this process.
with open("/proc/self/status") as status:
    (peak_kb,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
if peak_kb * 1024 > {most_bytes}:
    os._exit({grew})
"""


def watched(planted: Path, readable: Path, work: str = "worker.main()") -> Callable[..., ValidationOutcome]:
    """A validator that is the real worker, watched.

    Args:
        planted: directory of modules that must stay unimported.
        readable: the only place with files to read.
        work: what the process does; something else shows that the watcher is awake.
    """

    def validate(request: ValidationRequest) -> ValidationOutcome:
        size_bytes = max((entry.size_bytes for entry, _ in request.files), default=0)
        program = _PROGRAM.format(
            planted=str(planted),
            readable=str(readable),
            touched=TOUCHED,
            grew=GREW,
            most_bytes=int(1.2 * size_bytes) + _ALLOWANCE_BYTES,
            work=work,
        )
        return validate_in_worker(request, program=program)

    return validate


def plant(directory: Path) -> Path:
    """Makes modules that leave a mark when they are imported."""
    mark = directory / "imported"
    for name in ("megatron/__init__.py", "megatron/evil.py", "planted_evil.py", "planted_auto.py"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(mark)!r}, 'w').close()\n")
    return directory
