"""Sends stored files to browsers safely; used by the routes for results and uploads.

The one invariant: only media that cannot run script are shown in place; everything else is a download.
"""

import asyncio
import re
from typing import Any, Final, Literal

from fastapi import Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.gateway.errors import error_response, errors
from serving.protocol.artifact import ArtifactRef
from serving.telemetry import ARTIFACT_BYTES, ARTIFACTS

SHOWN: Final = frozenset(
    {
        "application/json",
        "application/x-subrip",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/plain",
        "text/vtt",
        "text/x-ass",
        "text/x-ssa",
        "video/mp4",
        "video/quicktime",
        "video/webm",
    }
)
"""Media types shown in place. SVG and HTML are not among them: they can carry script."""
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; img-src 'self'; sandbox",
    "Cache-Control": "private, max-age=31536000, immutable",
}


FILE_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The bytes.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The asked part.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    307: {"description": "The bytes lie in S3; Location is their address for an hour."},
    **errors(416),
}
"""What OpenAPI says of a route that gives a file."""
_NOT_SATISFIABLE: Final = 416
_CAPTIONS: Final = "text/vtt"
_SPEC: Final = r"(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})"
_RANGES: Final = re.compile(rf"bytes=\s*{_SPEC}(?:\s*,\s*{_SPEC}){{0,15}}\s*", re.ASCII | re.IGNORECASE)


def asked_part(text: str | None, size_bytes: int) -> Literal["whole", "part", "nothing"]:
    """What a Range header asks of a file: RFC 9110 lets a server ignore what it cannot read, and what is too much."""
    if text is None or not _RANGES.fullmatch(text):
        return "whole"
    inside, backwards = [], False
    for spec in text.partition("=")[2].split(","):
        first, _, last = spec.strip().partition("-")
        inside.append(int(first) < size_bytes if first else int(last) > 0 and size_bytes > 0)
        backwards |= bool(first and last and int(last) < int(first))
    if backwards:
        return "whole"
    if not any(inside):
        return "nothing"
    return "part" if all(inside) else "whole"


class StoredFile(FileResponse):
    """A file whose Range header was looked at before Starlette does, which answers some of them in words of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole, the part, or why there is none."""
        size = int(self.headers.get("content-length", "0"))
        match asked_part(Headers(scope=scope).get("range"), size):
            case "whole":
                scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
            case "nothing":
                error = BadInput(f"the file has {size} bytes", field="Range", fix="ask for a part of them")
                answer = error_response(error, {"Content-Range": f"bytes */{size}"})
                answer.status_code = _NOT_SATISFIABLE
                return await answer(scope, receive, send)
        await super().__call__(scope, receive, send)
        return None


async def serve_artifact(artifacts: ArtifactStore, ref: ArtifactRef, *, download: bool = False) -> Response:
    """The bytes of an artifact: from disk with Range, ETag and HEAD support, or by redirect to where they lie.

    Captions are always sent from here.

    Raises:
        NotFound: the store does not have it.
    """
    # Browsers take the captions of a player from its page's own host alone.
    url = await artifacts.presign(ref) if ref.media_type != _CAPTIONS else None
    if url is not None:
        return RedirectResponse(url, status_code=307)
    path = await artifacts.local_path(ref)
    ARTIFACTS.labels("get").inc()
    ARTIFACT_BYTES.labels("get").inc(ref.size_bytes)
    shown = ref.media_type in SHOWN and not download
    return StoredFile(
        path,
        stat_result=await asyncio.to_thread(path.stat),
        media_type=ref.media_type if ref.media_type in SHOWN else "application/octet-stream",
        filename=ref.name,
        content_disposition_type="inline" if shown else "attachment",
        headers={**_HEADERS, "ETag": f'"{ref.sha256}"'},
    )
