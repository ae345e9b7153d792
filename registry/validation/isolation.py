"""Taking the network away from a process that is about to read hostile bytes.

Linux gives a process network name spaces of its own without any rights where
unprivileged user name spaces are allowed. Where they are not, the worker still
has no credentials, cannot write and dies at its limits, but could open a
connection if it were taken over; `network_is_cut` says which it is.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import Final

_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_PROBE: Final = "from switchyard.registry.validation.isolation import leave_network; print(leave_network())"
_PROBE_S: Final = 30.0


def leave_network() -> bool:
    """Moves this process, for good, to where not even the loopback interface is up; tells whether that worked.

    First without a new user name space: with the rights for that, files of other owners stay readable.
    """
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return False
    return bool(unshare(_CLONE_NEWNET) == 0 or unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def network_is_cut() -> bool:
    """Tells whether validation has no network on this machine; asks a process like the worker."""
    command = [sys.executable, "-I", "-B", "-c", _PROBE]
    done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, env={}, cwd="/", check=False)
    return done.stdout.strip() == b"True"
