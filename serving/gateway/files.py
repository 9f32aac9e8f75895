"""Sends stored files to browsers safely; used by the routes for results and uploads.

The one invariant: only media that cannot run script are shown in place; everything else is a download.
"""

from typing import Final

from fastapi import Response
from fastapi.responses import FileResponse, RedirectResponse

from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef
from serving.telemetry import ARTIFACT_BYTES, ARTIFACTS

PRESIGNED_S: Final = 3600.0
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


async def serve_artifact(artifacts: ArtifactStore, ref: ArtifactRef, *, download: bool = False) -> Response:
    """The bytes of an artifact: from disk with Range, ETag and HEAD support, or by redirect to where they lie.

    Raises:
        NotFound: the store does not have it.
    """
    url = await artifacts.presign(ref, ttl_s=PRESIGNED_S)
    if url is not None:
        return RedirectResponse(url, status_code=307)
    path = await artifacts.local_path(ref)
    ARTIFACTS.labels("get").inc()
    ARTIFACT_BYTES.labels("get").inc(ref.size_bytes)
    shown = ref.media_type in SHOWN and not download
    return FileResponse(
        path,
        media_type=ref.media_type if ref.media_type in SHOWN else "application/octet-stream",
        filename=ref.name,
        content_disposition_type="inline" if shown else "attachment",
        headers={**_HEADERS, "ETag": f'"{ref.sha256}"'},
    )
