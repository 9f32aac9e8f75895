"""JobDesk: checks a job and has it accepted; every front end, HTTP and the intakes, hands jobs in here.

The one invariant: everything that can be known to be wrong is refused before a row is written, and what has a row
already is answered by it, unchecked.
"""

import difflib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput, Conflict, Forbidden, NotFound, Unprocessable
from serving.jobs.acceptance import Named, NewJob
from serving.jobs.fork import Edits, check_results, forked_from, forked_input, parse_edits
from serving.jobs.input_problems import bad_input
from serving.jobs.records import JobRecord
from serving.jobs.refs import Path, walk_refs
from serving.jobs.results import Results
from serving.jobs.store import JobStore
from serving.jobs.tables import ANYBODY
from serving.jobs.types import JobType, Lane
from serving.jobs.webhooks.check import WebhookCheck
from serving.jobs.webhooks.deliveries import Deliveries
from serving.protocol.licences import COMMERCIAL, Use
from serving.repository.yaml_lines import dotted

MAX_TIMEOUT_S: Final = 24 * 3600.0
MAX_DEADLINE_S: Final = 30 * 24 * 3600.0
MAX_KEY_CHARS: Final = 190
"""The table keeps a key behind its tenant's name."""


class JobWebhook(BaseModel):
    """Where a job's events are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1, max_length=2048, description="http or https; leads to a public address.")
    events: list[str] = Field(default=[], max_length=16, description="Kinds of events that are sent; empty sends all.")


class JobRequest(BaseModel):
    """What a client sends: ``POST /v1/jobs``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(min_length=1, max_length=64, description="A job type of GET /v1/job-types.")
    input: dict[str, JsonValue] = Field(description="The job type's request; its JSON schema is in GET /v1/job-types.")
    lane: Lane | None = Field(default=None, description="Priority class; None takes the job type's own.")
    timeout_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_TIMEOUT_S,
        strict=True,
        description="Bound on the run; None takes the job type's own.",
    )
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DEADLINE_S,
        strict=True,
        description="When the result is needed, from now on; no stage starts that would end later.",
    )
    stop_at: str | None = Field(
        default=None, max_length=64, description="The last stage to run; the job completes with what it has then."
    )
    use_cache: bool = Field(default=True, strict=True, description="Take results of equal stages of other jobs.")
    use: Use | None = Field(
        default=None,
        description="What it is for; null takes the key's. A key for commercial work takes no other.",
    )
    webhook: JobWebhook | None = Field(default=None, description="Where to send the job's events.")


@dataclass(frozen=True, slots=True)
class UseBounds:
    """What jobs of somebody may be for.

    Args:
        default: what a job is for that does not say.
        bound: whether it may be for nothing else; else a job may always be for commercial work, which is the stricter,
            and for what is not.
    """

    default: Use = COMMERCIAL
    bound: bool = False

    def use_of(self, asked: Use | None) -> Use:
        """The use of a job that says ``asked``; raises :class:`Forbidden` where it may not."""
        if asked is None or asked == self.default:
            return self.default
        if self.bound:
            fix = "leave it out, or ask for a key whose use is non_commercial"
            raise Forbidden(f"the key is for {self.default} work alone", field="use", fix=fix)
        return asked


ANY_USE: Final = UseBounds()
"""Of whoever brings no key."""


class Permit(Protocol):
    """What knows the models' licences: :class:`serving.router.Router`."""

    def permit(self, task: str, use: Use, *, model: str | None = None) -> None:
        """Raise :class:`LicenceForbids` where the model, or the task's first, may not be used for that."""


class JobDesk:
    """Takes jobs in.

    Args:
        store: where accepted jobs go.
        catalog: every job type by name.
        artifacts: where files that jobs refer to must be.
        check_webhook: says what is wrong with a webhook; None leaves that to the sender, which refuses it at the first
            try.
        permit: knows the models' licences; None leaves them to the stages.
    """

    def __init__(
        self,
        store: JobStore,
        catalog: Mapping[str, JobType],
        artifacts: ArtifactStore,
        check_webhook: WebhookCheck | None = None,
        permit: Permit | None = None,
    ) -> None:
        self._permit = permit
        self._check_webhook = check_webhook
        self._store = store
        self._catalog = catalog
        self._artifacts = artifacts

    async def submit(
        self,
        request: JobRequest,
        *,
        key: str | None = None,
        tenant: str = ANYBODY,
        source: str = "http",
        message_id: str | None = None,
        bounds: UseBounds = ANY_USE,
    ) -> tuple[JobRecord, bool]:
        """Check a job, write it and put it in line.

        Args:
            request: what the client wants.
            key: an idempotency key; a second request of the tenant with it gives the first one's job.
            tenant: whose job it is.
            source: the way it came: ``http``, or an intake's name.
            message_id: of the message it came in; a second one of the source with it gives the first one's job.
            bounds: what the job may be for.

        Returns:
            The job, and whether it is new.

        Raises:
            Unprocessable: names the field and the fix; or the key was used for another request.
            Forbidden: it says that it is for what its key is not.
            LicenceForbids: the licence of a model that it will ask does not allow its use.
            TooMany: as many jobs wait as may.
        """
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
            raise Unprocessable(f"the key must have 1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key")
        own_key = f"{tenant}:{key}" if key is not None else None
        digest = request_digest(request)
        named = Named(request_sha256=digest, idempotency_key=own_key, source=source, message_id=message_id)
        # First, since what a check finds may be otherwise by now: a name server, a file, a job type.
        if (known := await self._store.known(named)) is not None:
            return known, False
        try:
            if request.webhook is not None and self._check_webhook is not None:
                await self._check_webhook(request.webhook.url, request.webhook.events, tenant)
            new = await self._prepare(request, bounds.use_of(request.use))
        except BadInput as error:
            raise unprocessable(error) from error
        return await self._store.accept(
            replace(new, idempotency_key=own_key, tenant=tenant, source=source, message_id=message_id)
        )

    async def retry(
        self,
        job_id: str,
        *,
        from_stage: str | None = None,
        edits: Edits | Mapping[str, object] | None = None,
        stop_at: str | None = None,
        once: bool = False,
    ) -> JobRecord:
        """Fork an ended job: a new one that takes what the old one finished, and does the rest, for the same use.

        Args:
            job_id: the ended job.
            from_stage: this stage and those after it are done again; None goes on where the old job ended, and with
                edits there is none.
            edits: merge patches on its input and results; what depends on what they change is done again.
            stop_at: the last stage to run.
            once: whether it must be the first fork.

        Raises:
            NotFound: no such job.
            Conflict: it has not ended, or has a fork.
            LicenceForbids: the licence of a model that it will ask does not allow its use.
            Unprocessable: names the field and the fix.
            TooMany: as many jobs wait as may.
        """
        parent = await self._store.get(job_id)
        if once and (forks := (await self._store.page(parent_id=job_id, limit=1)).jobs):
            raise _driven(forks[0])
        try:
            wanted = parse_edits(edits)
            stage = forked_from(parent, from_stage, wanted)
            await check_results(parent, wanted, Results(self._store.database, self._artifacts))
            new = await self._prepare(_forked(parent, wanted, stop_at), parent.use)
        except BadInput as error:
            raise unprocessable(error) from error
        tenant = await self._store.tenant_of(job_id)
        webhook = await Deliveries(self._store.database).webhook_of(job_id)
        fork = replace(new, tenant=tenant, parent_id=job_id, from_stage=stage, edits=wanted.as_json(), webhook=webhook)
        # The key makes one job of two that ask in the same moment.
        record, is_new = await self._store.accept(replace(fork, idempotency_key=f"fork-of-{job_id}") if once else fork)
        if not is_new:
            raise _driven(record)
        return record

    async def _prepare(self, request: JobRequest, use: Use) -> NewJob:
        job_type = self._catalog.get(request.type)
        if job_type is None:
            raise BadInput(
                f"there is no job type {request.type!r}", field="type", fix=f"one of {', '.join(sorted(self._catalog))}"
            )
        check_text(request.input, ("input",))
        check_stage(job_type, request.stop_at, field="stop_at")
        checked = parse_input(job_type, request.input)
        await self._check_artifacts(checked)
        if job_type.check is not None:
            await _checked(job_type, checked, self._artifacts)
        if self._permit is not None and job_type.models is not None:
            for task, model in job_type.models(checked).items():
                self._permit.permit(task, use, model=model)
        deadline = None if request.deadline_s is None else time.time() + request.deadline_s
        return NewJob(
            type=job_type.name,
            input=checked.model_dump(mode="json"),
            lane=request.lane or job_type.lane,
            timeout_s=request.timeout_s or job_type.timeout_s,
            tries=job_type.tries,
            stages=[stage.name for stage in job_type.stages],
            request_sha256=request_digest(request),
            deadline_at=deadline,
            stop_at=request.stop_at,
            use_cache=request.use_cache,
            use=use,
            webhook=None if request.webhook is None else request.webhook.model_dump(mode="json"),
            predicted_s=None if job_type.predict is None else job_type.predict(checked),
        )

    async def _check_artifacts(self, checked: BaseModel) -> None:
        for path, ref in walk_refs(checked, ("input",)):
            try:
                size = await self._artifacts.size_bytes(ref)
            except NotFound:
                raise BadInput(
                    f"there is no artifact {ref.sha256[:12]}", field=dotted(path), fix="upload it by POST /v1/artifacts"
                ) from None
            if size != ref.size_bytes:
                raise BadInput(
                    f"the artifact has {size} bytes, not {ref.size_bytes}",
                    field=f"{dotted(path)}.size_bytes",
                    fix="send the reference as POST /v1/artifacts answered it",
                )


def _forked(parent: JobRecord, edits: Edits, stop_at: str | None) -> JobRequest:
    """The request of a fork: its parent's, as it was edited."""
    return JobRequest(
        type=parent.type,
        input=forked_input(parent, edits),
        lane=parent.lane,
        timeout_s=parent.timeout_s,
        stop_at=stop_at,
        use_cache=parent.use_cache,
    )


def _driven(fork: JobRecord) -> Conflict:
    fix = f"`reelmesh jobs show {fork.id}` shows it; `reelmesh jobs retry` makes another all the same"
    return Conflict(f"the job {fork.id} goes on with it already", fix=fix)


def unprocessable(error: BadInput) -> Unprocessable:
    """The same problem, as the front ends of jobs tell it."""
    return Unprocessable(error.problem, field=error.field, fix=error.fix)


def parse_request(value: Mapping[str, JsonValue]) -> JobRequest:
    """A client's JSON as a request; raises :class:`Unprocessable` that names the first wrong fields."""
    try:
        return JobRequest.model_validate(dict(value))
    except ValidationError as error:
        raise unprocessable(bad_input(error, JobRequest)) from error


def check_text(value: JsonValue, path: Path) -> None:
    """Refuse the NUL character, which PostgreSQL does not keep, in text and names; ``path`` leads to the value."""
    if isinstance(value, str) and "\0" in value:
        raise BadInput("the text holds the character NUL", field=dotted(path), fix="leave it out")
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_text(name, path)
            check_text(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_text(item, (*path, index))


def check_stage(job_type: JobType, name: str | None, *, field: str) -> None:
    """Refuse a stage that the job type does not have."""
    known = [stage.name for stage in job_type.stages]
    if name is None or name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise BadInput(f"{job_type.name} has no stage {name!r}", field=field, fix=f"{hint}Stages: {', '.join(known)}")


async def _checked(job_type: JobType, request: BaseModel, artifacts: ArtifactStore) -> None:
    """Run the type's own check, and say which part of the body its fields belong to."""
    if job_type.check is None:
        return
    try:
        await job_type.check(request, artifacts)
    except BadInput as error:
        raise type(error)(
            error.problem, field=f"input.{error.field}" if error.field else "input", fix=error.fix
        ) from error


def parse_input(job_type: JobType, value: Mapping[str, JsonValue]) -> BaseModel:
    """The typed request of a job; raises :class:`BadInput` that names the first wrong fields."""
    try:
        return job_type.request.model_validate(dict(value))
    except ValidationError as error:
        raise bad_input(error, job_type.request, "input") from error


def request_digest(request: JobRequest) -> str:
    """SHA-256 of what the client sent, whatever the order of its keys."""
    canonical = json.dumps(
        request.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()
