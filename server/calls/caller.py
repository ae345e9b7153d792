"""Who is calling, once that was proven; the one place where a servicer may read it."""

from __future__ import annotations

from contextvars import ContextVar

from switchyard.registry.access.principals import Principal

CALLER: ContextVar[Principal | None] = ContextVar("switchyard_caller", default=None)
"""The proven caller of the call being served; None where everybody who reaches the listener may do everything."""


def proven_actor() -> str | None:
    """Name of the proven caller; None when nobody had to prove anything, and a caller may say who it is."""
    caller = CALLER.get()
    return caller.name if caller is not None else None
