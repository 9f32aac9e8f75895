"""Routes for artifacts: upload files that jobs will refer to, and get them back; part of the gateway's application.

The one invariant: an upload goes to disk piece by piece and appears in the store whole or not at all.
"""

import asyncio
import contextlib
import mimetypes
import re
import tempfile
import time
from pathlib import Path as FilePath
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import ValidationError

from serving.artifacts.provenance import Provenance
from serving.errors import BadInput, NotFound
from serving.gateway.bodies import bounded_stream
from serving.gateway.deps import Deps
from serving.gateway.errors import errors
from serving.gateway.files import FILE_ANSWERS, serve_artifact
from serving.jobs.input_problems import bad_input
from serving.jobs.submit import unprocessable
from serving.protocol.artifact import ArtifactRef
from serving.telemetry import ARTIFACT_BYTES, ARTIFACTS

router = APIRouter(prefix="/v1", tags=["artifacts"], responses=errors(422, 503))

UNKNOWN: Final = "application/octet-stream"
_UNTOLD: Final = frozenset({"", UNKNOWN, "application/x-www-form-urlencoded"})
"""What clients send that were not told the type; curl's ``--data-binary`` says the last one."""
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}")
ABANDONED_S: Final = 3600.0
"""A file of an upload that nobody has written to for this long belongs to a gateway that is gone."""
_UPLOAD: Final = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def media_type_of(header: str, name: str) -> str:
    """The type the client told, or the one its file name suggests."""
    told = header.partition(";")[0].strip().lower()
    if told not in _UNTOLD and _MEDIA_TYPE.fullmatch(told):
        return told
    return mimetypes.guess_type(name)[0] or UNKNOWN


@router.post("/artifacts", status_code=201, openapi_extra=_UPLOAD, responses=errors(400, 413))
async def upload(deps: Deps, request: Request, name: Annotated[str, Query(max_length=255)] = "artifact") -> ArtifactRef:
    """Store the body's bytes. The answer is the reference that goes into a job's input."""
    try:
        wanted = ArtifactRef(
            sha256="0" * 64,
            size_bytes=0,
            name=name,
            media_type=media_type_of(request.headers.get("content-type", ""), name),
        )
    except ValidationError as error:
        raise unprocessable(bad_input(error, ArtifactRef)) from error
    folder = deps.settings.home / "uploads"
    await asyncio.to_thread(_make_ready, folder)
    with tempfile.NamedTemporaryFile(dir=folder) as stream:
        async with await anyio.open_file(stream.name, "wb") as file:
            async for piece in bounded_stream(request, deps.settings.limits.upload_bytes, what="a file"):
                await file.write(piece)
        path = FilePath(stream.name)
        if path.stat().st_size == 0:  # noqa: ASYNC240
            raise BadInput("the body is empty", fix="send the file's bytes as the body")
        ref = await deps.artifacts.put_file(path, media_type=wanted.media_type, name=wanted.name)
    await deps.artifacts.put_provenance(ref, Provenance.of_upload(ref))
    ARTIFACTS.labels("put").inc()
    ARTIFACT_BYTES.labels("put").inc(ref.size_bytes)
    return ref


def _make_ready(folder: FilePath) -> None:
    """Make the folder of unfinished uploads, and remove from it what a gateway left that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
            if path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink()


@router.head("/artifacts/{sha256}", include_in_schema=False)
@router.get("/artifacts/{sha256}", response_class=Response, responses={**errors(404), **FILE_ANSWERS})
async def download(deps: Deps, request: Request, sha256: Sha256) -> Response:
    """The bytes of an artifact; HEAD tells whether they are here."""
    ref = ArtifactRef(sha256=sha256, size_bytes=0, name=sha256)
    try:
        size = await deps.artifacts.size_bytes(ref)
    except NotFound as error:
        raise NotFound(f"there is no artifact {sha256[:12]}", fix="upload it by POST /v1/artifacts") from error
    if request.method == "HEAD":
        return Response(headers={"Content-Length": str(size), "ETag": f'"{sha256}"'})
    ref = ref.model_copy(update={"size_bytes": size})
    return await serve_artifact(deps.artifacts, ref, download=True)


@router.get("/artifacts/{sha256}/provenance", responses=errors(404))
async def provenance(deps: Deps, sha256: Sha256) -> Provenance:
    """What made the artifact: models, revisions, licences, seeds, the job and its stage, or that it was uploaded."""
    record = await deps.artifacts.provenance(ArtifactRef(sha256=sha256, size_bytes=0, name=sha256))
    if record is None:
        raise NotFound(f"nothing is known of how {sha256[:12]} was made", fix="check the digest")
    return record
