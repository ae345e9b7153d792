"""`GET /metrics` beside OpenAI's paths, for who cannot reach the port of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from starlette.responses import Response

from switchyard.registry.access.policy import Scope
from switchyard.server.calls.caller import CALLER
from switchyard.server.calls.guard import require
from switchyard.server.calls.needs import on_everything
from switchyard.server.http.endpoint import Call

Exposition: TypeAlias = Callable[[str], tuple[bytes, str]]
"""Writes all metrics in a form that an Accept header takes; also gives their content type."""


class MetricsPage:
    """Answers scrapes of this port; they need the right to observe where callers prove who they are."""

    def __init__(self, exposition: Exposition) -> None:
        """Takes what writes all metrics."""
        self._exposition = exposition

    async def show(self, call: Call) -> Response:
        """All metrics, as Prometheus reads them.

        Raises:
            PermissionDenied: the caller may not observe the server.
        """
        if (caller := CALLER.get()) is not None:
            require((on_everything(Scope.OBSERVE),), caller)
        data, content_type = self._exposition(call.request.headers.get("accept", ""))
        return Response(data, headers={"content-type": content_type})
