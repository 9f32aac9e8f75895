"""Guard: the middleware around every request: security headers, refusal of cross-site writes, metrics.

The one invariant: it is plain ASGI and never buffers, so streams and large files pass as they come; and every answer,
that to a crash of ours too, passes it, so all carry the headers and are counted.
"""

import time
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import BadInput, EngineFailed
from serving.gateway.errors import error_response
from serving.telemetry import HTTP_REQUESTS, HTTP_SECONDS

log = structlog.get_logger()


def page_policy(store: str | None = None) -> str:
    """What a page may load: from this server alone, and pictures, films and sound from the artifact store too.

    Args:
        store: scheme and host that addresses of artifacts are redirected to; None where this server sends the bytes.
    """
    also = f" {store}" if store else ""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' data:{also}",
            f"media-src 'self'{also}",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    )


_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": page_policy(),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
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
        began, answering = time.perf_counter(), False

        async def sending(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                _count(scope, message["status"], time.perf_counter() - began)
            await send(message)

        if _is_foreign_write(scope):
            refusal = error_response(
                BadInput("another site may not do this", fix="use the mesh's own pages or a client")
            )
            refusal.status_code = _FORBIDDEN
            await refusal(scope, receive, sending)
            return
        try:
            await self._app(scope, receive, sending)
        except Exception:
            log.exception("request_crashed", path=scope["path"][:256])
            if answering:
                raise  # the server can only cut the answer off
            await error_response(EngineFailed("the gateway failed; its log says more"))(scope, receive, sending)


def _is_foreign_write(scope: Scope) -> bool:
    """Whether a browser sends the request for another site's page; without a login, nothing else would stop it.

    Browsers send Sec-Fetch-Site to https and to this machine only; to a plain address of the network they send Origin.
    """
    if scope["method"] in _READS:
        return False
    headers = Headers(scope=scope)
    if (site := headers.get("sec-fetch-site")) is not None:
        return site in {"cross-site", "same-site"}
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    # Clients may make methods up, and each would be a new series.
    method = scope["method"] if scope["method"] in _READS | _WRITES else "other"
    HTTP_REQUESTS.labels(route, method, str(status)).inc()
    HTTP_SECONDS.labels(route, method).observe(seconds)
