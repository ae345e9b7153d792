"""The root of the registry's errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from switchyard.registry.verdicts import Verdict

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")


class RegistryError(Exception):
    """Root of the registry's errors.

    Attributes:
        reason: stable upper-case name for machines.
        retryable: whether the same call may succeed later.
    """

    reason: ClassVar[str] = "REGISTRY_ERROR"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Names the reason after the class, unless the class names it."""
        cls.reason = vars(cls).get("reason") or _CAPITAL.sub("_", cls.__name__).upper()


def listed(headline: str, verdicts: tuple[Verdict, ...]) -> str:
    """A headline with every verdict below it."""
    return "\n".join([headline, *(f"  {verdict}" for verdict in verdicts)])
