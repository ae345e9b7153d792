"""The process in which chat templates run: little memory, no files, no network, and killed when it takes too long.

One JSON text per line in, one out. Started with `python -P -m switchyard.server.chat.render_worker`.
"""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from jinja2 import TemplateError

from switchyard.registry.strict_json import Json
from switchyard.server.chat.templates import Refused, render_both

MEMORY_BYTES: Final = 256 << 20
"""Address space beyond what the process has when it begins."""

_MESSAGE_CHARACTERS: Final = 300


_WARM_UPS: Final = (
    "{% macro f(x) %}{{ x ~ 'é' ~ 1.5 | round | string }}{% endmacro %}{{ f(1) | trim | upper }}",
    "{{ strftime_now('%d %b %Y') }}{{ messages | tojson(indent=1) }}{% set ns = namespace(a=1) %}",
    "{% for a in [1] %}{% if loop.first %}{% continue %}{% endif %}{% endfor %}",
    "{{ nothing.there }}",
    "{{ 'no end",
)


def answer(line: str) -> dict[str, Json]:
    """Renders what one line asks for; a fault is told, never raised."""
    asked = json.loads(line)
    try:
        text, masked = render_both(
            asked["template"], asked["turns"], asked["tools"], asked["variables"], asked["most_characters"]
        )
    except Refused as error:
        return {"refused": str(error)[:_MESSAGE_CHARACTERS]}
    except OverflowError as error:
        return {"too_long": str(error)}
    except MemoryError:
        return {"failed": "it takes more memory than it may"}
    except RecursionError:
        return {"failed": "it calls itself too deep"}
    except Exception as error:  # whatever a program of somebody else raises
        return {"failed": f"{type(error).__name__}: {error}"[:_MESSAGE_CHARACTERS]}
    return {"text": text, "masked": masked}


def limit_this_process() -> None:
    """Takes away what no template needs; cannot be undone."""
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        size_bytes = int(file.read().split()[0]) * resource.getpagesize()
    most = size_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def main() -> None:
    """Answers until standard input ends."""
    # Before the limits: lazy imports of the first rendering would meet them.
    for warm_up in _WARM_UPS:
        with suppress(TemplateError):
            render_both(warm_up, [], [], {}, 99)
    limit_this_process()
    for line in sys.stdin:
        # ASCII, so that a surrogate which JSON smuggled in goes back as it came.
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
