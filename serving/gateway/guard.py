"""Guard: the middleware around every request: security headers, refusal of cross-site writes, metrics.

The one invariant: it is plain ASGI and never buffers, so streams and large files pass as they come.
"""

import time
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import BadInput
from serving.gateway.errors import error_response
from serving.telemetry import HTTP_REQUESTS, HTTP_SECONDS

PAGE_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": PAGE_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORBIDDEN: Final = 403


class Guard:
    """Wraps the application.

    Args:
        app: what it guards.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                _count(scope, message["status"], time.perf_counter() - started)
            await send(message)

        if _is_foreign_write(scope):
            refusal = error_response(
                BadInput("another site may not do this", fix="use the mesh's own pages or a client")
            )
            refusal.status_code = _FORBIDDEN
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


def _is_foreign_write(scope: Scope) -> bool:
    """Whether a browser sends the request for another site's page; without a login, nothing else would stop it."""
    if scope["method"] in _READS:
        return False
    return Headers(scope=scope).get("sec-fetch-site") in {"cross-site", "same-site"}


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    HTTP_REQUESTS.labels(route, scope["method"], str(status)).inc()
    HTTP_SECONDS.labels(route, scope["method"]).observe(seconds)
