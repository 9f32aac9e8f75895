"""JobsClient: the jobs API of a running mesh, over HTTP; used by the command line, the demo and load tests.

The one invariant: whatever goes wrong leaves here as an error of serving.errors, as the mesh named it.
"""

import asyncio
import hashlib
import mimetypes
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from serving.artifacts.store import hash_file
from serving.cli.sse import Message, messages
from serving.errors import BadInput, EngineFailed, ReelmeshError, Unavailable, foreign_text
from serving.gateway.views import ArtifactView, EventView, JobList, JobTypeList, JobTypeView, JobView
from serving.jobs.types import JobState
from serving.protocol.artifact import ArtifactRef

M = TypeVar("M", bound=BaseModel)

Moved = Callable[[int], None]
"""Called with the number of bytes that went over the wire since the last call."""

CHUNK_BYTES: Final = 256 << 10
LOST_S: Final = 30.0
"""How long a broken event stream is taken up again before the mesh counts as gone."""
_HTTP_OK: Final = range(200, 300)
_NO_CONTENT: Final = 204
_RESULTS_AT_ONCE: Final = 20


class _Result(BaseModel):
    part: int
    value: JsonValue


class _Results(BaseModel):
    data: list[_Result]
    next_after: int | None


class JobsClient:
    """Talks to one mesh; use it as ``async with JobsClient(url) as client``.

    Args:
        base_url: of the mesh, for example ``http://127.0.0.1:8000``.
        timeout_s: longest silence of the mesh within one answer.
        key: of the mesh; "" sends none.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 30.0, key: str = "") -> None:
        self.base_url = base_url.rstrip("/")
        headers = {b"Authorization": f"Bearer {key}".encode()} if key else {}
        try:
            self._http = httpx.AsyncClient(base_url=self.base_url, timeout=timeout_s, trust_env=False, headers=headers)
        except httpx.InvalidURL as error:
            raise BadInput(f"{base_url!r} is no address", field="--host", fix="write http://machine:port") from error

    async def __aenter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def job_types(self) -> dict[str, JobTypeView]:
        """What can be submitted, by name."""
        answer = await self._call("GET", "/v1/job-types")
        return {found.name: found for found in self._read(JobTypeList, answer.content).data}

    async def upload(
        self, path: Path, *, name: str | None = None, media_type: str | None = None, moved: Moved | None = None
    ) -> ArtifactRef:
        """Store a file in the mesh; one that is there already is not sent again.

        Args:
            path: of a readable file.
            name: what people call it; None takes the file's name.
            media_type: None guesses it from the name.
            moved: hears of bytes sent.
        """
        name = name or path.name
        media_type = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        sha256, size = await asyncio.to_thread(hash_file, path)
        known = await self._call("HEAD", f"/v1/artifacts/{sha256}", accept=(404,))
        if known.status_code in _HTTP_OK:
            if moved is not None:
                moved(size)
            return ArtifactRef(sha256=sha256, size_bytes=size, media_type=media_type, name=name)
        answer = await self._call(
            "POST",
            "/v1/artifacts",
            params={"name": name},
            content=_pieces(path, moved),
            headers={"Content-Type": media_type, "Content-Length": str(size)},
        )
        return self._read(ArtifactRef, answer.content)

    async def submit(
        self,
        type_name: str,
        value: Mapping[str, JsonValue],
        *,
        key: str | None = None,
        **options: JsonValue,
    ) -> JobView:
        """Submit a job.

        Args:
            type_name: of a job type.
            value: its input.
            key: makes sending it again harmless.
            options: the request's further fields, ``lane`` and ``deadline_s`` for example; None leaves one out.
        """
        body: dict[str, JsonValue] = {"type": type_name, "input": dict(value)}
        body |= {name: option for name, option in options.items() if option is not None}
        headers = {"Idempotency-Key": key} if key is not None else {}
        answer = await self._call("POST", "/v1/jobs", json=body, headers=headers)
        return self._read(JobView, answer.content)

    async def retry(
        self,
        job_id: str,
        *,
        from_stage: str | None = None,
        stop_at: str | None = None,
        edits: Mapping[str, JsonValue] | None = None,
    ) -> JobView:
        """A new job that goes on from a stage of an ended one, or with edits of its input and results."""
        named = {"from": from_stage, "stop_at": stop_at}
        params = {name: stage for name, stage in named.items() if stage is not None}
        answer = await self._call("POST", f"/v1/jobs/{job_id}/retry", params=params, json=dict(edits or {}))
        return self._read(JobView, answer.content)

    async def results(self, job_id: str, stage: str) -> dict[str, JsonValue]:
        """What the finished parts of a stage gave, by the number of the part as text."""
        found: dict[str, JsonValue] = {}
        after: int | None = -1
        while after is not None:
            params = {"after": after, "limit": _RESULTS_AT_ONCE}
            answer = await self._call("GET", f"/v1/jobs/{job_id}/stages/{stage}/results", params=params)
            page = self._read(_Results, answer.content)
            found |= {str(each.part): each.value for each in page.data}
            after = page.next_after
        return found

    async def redrive(self, job_id: str) -> JobView:
        """A new job that goes on where a dead letter ended."""
        answer = await self._call("POST", f"/v1/jobs/{job_id}/redrive")
        return self._read(JobView, answer.content)

    async def job(self, job_id: str) -> JobView:
        """One job."""
        answer = await self._call("GET", f"/v1/jobs/{job_id}")
        return self._read(JobView, answer.content)

    async def jobs(
        self,
        *,
        states: Collection[JobState] = (),
        dead: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobList:
        """A page of jobs, newest first; ``dead`` picks dead letters, or all but them."""
        params: dict[str, Any] = {"state": [str(state) for state in states], "limit": limit}
        if dead is not None:
            params["dead"] = dead
        if cursor is not None:
            params["cursor"] = cursor
        return self._read(JobList, (await self._call("GET", "/v1/jobs", params=params)).content)

    async def cancel(self, job_id: str) -> JobView:
        """Cancel a job."""
        answer = await self._call("POST", f"/v1/jobs/{job_id}/cancel")
        return self._read(JobView, answer.content)

    async def events(self, job_id: str, *, after: int = 0) -> AsyncIterator[EventView]:
        """The job's history and what happens next, up to its end; a lost connection is taken up again.

        Raises:
            NotFound: no such job.
            Unavailable: the mesh could not be reached for :data:`LOST_S` seconds.
        """
        heard_at = time.monotonic()
        while True:
            try:
                async for message in self._listen(job_id, after):
                    heard_at = time.monotonic()
                    if message is None:
                        return
                    if not message.data:
                        continue
                    event = self._read(EventView, message.data)
                    after = event.seq
                    yield event
                    if event.is_final:
                        return
            except Unavailable:
                if time.monotonic() - heard_at > LOST_S:
                    raise
            if time.monotonic() - heard_at > LOST_S:
                raise Unavailable(
                    f"the mesh at {self.base_url} tells nothing of job {job_id}",
                    fix="ask again with `reelmesh jobs show`",
                )
            await asyncio.sleep(0.5)

    async def _listen(self, job_id: str, after: int) -> AsyncIterator[Message | None]:
        """Messages of one connection; None when the mesh has nothing more to say."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        with self._translated():
            async with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
                if answer.status_code == _NO_CONTENT:
                    yield None
                    return
                await _check(answer)
                async for message in messages(answer.aiter_lines()):
                    yield message

    async def download(self, file: ArtifactView, target: Path, *, moved: Moved | None = None) -> Path:
        """Write a result file to ``target``, whole or not at all.

        Raises:
            EngineFailed: the bytes are not those the job made.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        digest = hashlib.sha256()
        try:
            with self._translated(), part.open("wb") as stream:
                async with self._http.stream("GET", file.url, follow_redirects=True) as answer:
                    await _check(answer)
                    async for piece in answer.aiter_bytes(CHUNK_BYTES):
                        digest.update(piece)
                        await asyncio.to_thread(stream.write, piece)
                        if moved is not None:
                            moved(len(piece))
            if digest.hexdigest() != file.sha256:
                raise EngineFailed(f"{file.name} arrived damaged", fix="download it again")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    async def _call(
        self,
        method: str,
        path: str,
        *,
        accept: Collection[int] = (),
        **options: Any,  # noqa: ANN401  httpx's own
    ) -> httpx.Response:
        with self._translated():
            answer = await self._http.request(method, path, **options)
        if answer.status_code not in accept:
            await _check(answer)
        return answer

    def _read(self, kind: type[M], content: bytes | str) -> M:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            text = content if isinstance(content, str) else content.decode("utf-8", "replace")
            raise EngineFailed(
                f"what answers at {self.base_url} is no mesh of this version: {foreign_text(text)}",
                fix="name the mesh with --host",
            ) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Unavailable(
                f"the mesh at {self.base_url} cannot be reached: {foreign_text(error) or type(error).__name__}",
                fix="start it with `reelmesh up`, or name it with --host",
            ) from error


async def _pieces(path: Path, moved: Moved | None) -> AsyncIterator[bytes]:
    with path.open("rb") as stream:
        while piece := await asyncio.to_thread(stream.read, CHUNK_BYTES):
            yield piece
            if moved is not None:
                moved(len(piece))


async def _check(answer: httpx.Response) -> None:
    """Raise the error the mesh answered with."""
    if answer.status_code not in _HTTP_OK:
        await answer.aread()
        raise error_of(answer.status_code, answer.content)


def _kinds(root: type[ReelmeshError]) -> Iterator[type[ReelmeshError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)


def error_of(status: int, body: bytes) -> ReelmeshError:
    """The error that an answer tells of: OpenAI's shape, the edge's ``{"error": text}``, or anything else."""
    by_code = {kind.code: kind for kind in _kinds(ReelmeshError)}
    by_status = {kind.http_status: kind for kind in reversed(list(_kinds(ReelmeshError)))}
    try:
        told = httpx.Response(status, content=body).json()["error"]
    except (ValueError, KeyError, TypeError):
        told = foreign_text(body.decode("utf-8", "replace")) or "no reason was given"
    kind = by_status.get(status, EngineFailed)
    if not isinstance(told, dict):
        return kind(str(told))
    kind = by_code.get(str(told.get("code")), kind)
    field = told.get("param")
    message = str(told.get("message"))
    return kind(message.removeprefix(f"{field}: "), field=field)
