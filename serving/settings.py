"""Settings: frozen groups, read once from REELMESH_* variables and flags by the composition root, then passed on.

The one invariant: nothing else in the mesh reads the environment for its own configuration.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import BadInput


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EdgeSettings(_Group):
    """The one address clients use."""

    host: str = Field(default="127.0.0.1", description="Address the edge binds to.")
    http_port: int = Field(
        default=8000, ge=0, le=65535, description="HTTP: inference, jobs, pages. 0 picks a free port."
    )
    grpc_port: int = Field(default=8001, ge=0, le=65535, description="gRPC inference. 0 picks a free port.")
    metrics_port: int = Field(default=8002, ge=0, le=65535, description="Prometheus metrics. 0 picks a free port.")
    heartbeat_s: float = Field(default=1.0, gt=0, description="How often replicas tell the edge that they live.")
    endpoint_ttl_s: float = Field(default=5.0, gt=0, description="A replica silent for this long leaves the rotation.")
    keys_file: Path | None = Field(
        default=None, description="YAML file of the bearer keys clients must bring; None asks for none."
    )
    allow_anonymous: bool = Field(
        default=False, description="Without a key file, let other machines reach the mesh all the same."
    )


class LimitSettings(_Group):
    """Bounds on what clients may send."""

    upload_bytes: int = Field(default=2 << 30, gt=0, description="Largest artifact a client may upload.")
    infer_bytes: int = Field(default=256 << 20, gt=0, description="Largest inference request.")
    infer_json_bytes: int = Field(
        default=16 << 20, gt=0, description="Largest JSON of an inference request; binary data are beside it."
    )
    body_bytes: int = Field(default=64 << 20, gt=0, description="Largest other request body.")
    spec_bytes: int = Field(default=1 << 20, gt=0, description="Largest job description.")
    jobs_listed: int = Field(default=200, gt=0, description="Most jobs in one page of a listing.")
    queued_jobs: int = Field(default=10_000, gt=0, description="Jobs waiting before new ones get 429.")
    job_wait_s: int = Field(
        default=30, ge=0, le=100, description="Longest that a submission waits for its job's end (`Prefer: wait`)."
    )
    inflight_per_replica: int = Field(
        default=64, gt=0, description="Requests one Ray replica holds before it answers 503."
    )
    queued_per_model: int = Field(
        default=1024,
        gt=0,
        description="Requests that wait in a Ray replica for a tensor model without `max_queue_size`.",
    )
    header_bytes: int = Field(
        default=15 << 10, ge=4 << 10, le=1 << 20, description="Largest header of a request, without its first line."
    )
    connections: int = Field(
        default=20_000, gt=0, description="Client connections held at a time, as far as the limit on open files goes."
    )
    grpc_streams: int = Field(default=1024, gt=0, description="Requests in flight on one HTTP/2 connection.")
    open_per_replica: int = Field(
        default=1024, gt=0, description="Requests the edge holds open at one replica of a model; more of them wait."
    )
    waiting_per_model: int = Field(
        default=4096, gt=0, description="Requests for one model that wait at the edge before more get 503."
    )
    gateway_bytes: int = Field(
        default=1 << 30, gt=0, description="Inference and load requests that a gateway holds at a time, together."
    )
    control_calls: int = Field(default=4096, gt=0, description="Control calls kept for replicas that start later.")
    control_bytes: int = Field(default=256 << 20, gt=0, description="Size of those calls together.")


class InferenceSettings(_Group):
    """Which models the inference plane serves, and how; the names follow tritonserver's flags."""

    model_control_mode: Literal["none", "explicit", "poll"] = Field(
        default="none",
        description="none: all models at start; explicit: by load and unload calls; poll: as the folders change.",
    )
    optional_models: list[str] = Field(
        default=[], description="Models marked optional that are served as well; `*` means all."
    )
    load_models: list[str] = Field(
        default=[], description="With explicit control, the models loaded at start; `*` means all."
    )
    repository_poll_s: float = Field(
        default=15.0, gt=0, le=86_400, allow_inf_nan=False, description="How often folders are looked at with poll."
    )
    triton: Literal["auto", "off"] = Field(
        default="auto", description="off: Ray replicas serve ONNX and Python models, Triton is not started."
    )
    replicas: dict[str, int] = Field(default={}, description="Least number of replicas by model name.")
    exit_timeout_s: float = Field(
        default=30.0, ge=0, le=86_400, allow_inf_nan=False, description="How long requests in flight may take on stop."
    )


class EngineSettings(_Group):
    """How engines run networks."""

    device: Literal["auto", "cpu"] = Field(
        default="auto", description="auto: the GPU that the replica leased, else the CPU; cpu: the CPU always."
    )
    precision: Literal["model", "fp32", "fp16", "bf16"] = Field(
        default="model", description="Of networks; model is what each card says."
    )
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads of a network whose share has no more.")


class WorkerSettings(_Group):
    """How jobs run."""

    concurrent_jobs: int = Field(default=1, gt=0, description="Jobs one worker runs at a time.")
    parallel_calls: int = Field(default=4, gt=0, description="Calls of one stage in flight at a time.")
    poll_s: float = Field(default=0.05, gt=0, description="How often a worker with a free slot looks at the line.")
    beat_s: float = Field(
        default=2.0, gt=0, le=5, description="How often a worker says that it lives and looks after lost ones."
    )
    silent_s: float = Field(
        default=10.0, gt=0, le=60, description="A worker on another machine that is silent for this long is lost."
    )


class IntakeSettings(_Group):
    """One queue at a broker that jobs are taken from; its address is left out of the repr."""

    kind: Literal["redis", "bullmq", "celery", "rabbitmq", "sqs"] = Field(
        description="redis: a stream; bullmq: a BullMQ queue; celery: a Celery queue; rabbitmq: a queue; sqs: a queue."
    )
    url: str = Field(
        min_length=1, max_length=2048, repr=False, description="Address of the broker; it may carry a password."
    )
    queue: str = Field(min_length=1, max_length=200, description="Name of the queue or stream.")
    group: str = Field(
        default="reelmesh", min_length=1, max_length=200, description="Consumer group of a Redis stream."
    )
    dead_letter: str = Field(
        default="",
        max_length=255,
        description="Where messages go that are no jobs; empty means what the broker has for it, else `<queue>.dead`.",
    )
    results_url: str = Field(
        default="",
        max_length=2048,
        repr=False,
        description="SQS: name or address of a queue that results are sent to; Celery: address of a result backend.",
    )
    prefetch: int = Field(
        default=16, ge=1, le=1000, description="Messages held at a time that are no jobs yet (BullMQ: that run)."
    )
    tenant: str = Field(
        default="anybody", min_length=1, max_length=64, description="Whose jobs they are, for fair shares of a lane."
    )

    @property
    def name(self) -> str:
        """What metrics, logs and the jobs table call it."""
        return f"{self.kind}:{self.queue}"


class WebhookSettings(_Group):
    """How the mesh tells a job's owner of its states."""

    secrets_file: Path | None = Field(
        default=None, description="YAML file of the secrets that sign webhooks, by tenant; None takes no webhooks."
    )
    allow_private: bool = Field(
        default=False, description="Send to private networks and this machine too, never to link-local addresses."
    )
    allowed_hosts: list[str] = Field(
        default=[], description="Names, addresses and networks that may be sent to whatever they are."
    )
    tries: int = Field(default=10, ge=1, le=100, description="Tries before a delivery is dead.")
    retry_s: float = Field(
        default=5.0, gt=0, le=3600, allow_inf_nan=False, description="First pause; each is four times the one before."
    )
    max_age_s: float = Field(
        default=3 * 86_400.0, gt=0, allow_inf_nan=False, description="Age of an event that is not tried any more."
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=300, allow_inf_nan=False, description="Bound on one try, from the name to the answer."
    )
    parallel: int = Field(default=16, ge=1, le=256, description="Deliveries one gateway sends at a time.")
    parallel_per_host: int = Field(default=4, ge=1, le=256, description="Of these, to one host.")
    poll_s: float = Field(
        default=0.5, gt=0, le=60, allow_inf_nan=False, description="How often a gateway looks for what is due."
    )


class ArtifactSettings(_Group):
    """How artifacts are kept where the store is S3; a folder needs none of it."""

    encryption: Literal["bucket", "AES256", "aws:kms"] = Field(
        default="bucket",
        description="Server-side encryption asked for; bucket leaves it to the bucket.",
    )
    kms_key_id: str = Field(default="", description="Key for aws:kms; empty means the account's own key for S3.")
    part_bytes: int = Field(
        default=8 << 20, ge=5 << 20, le=1 << 30, description="Files above this go up in parts of this size."
    )
    presigned_s: float = Field(
        default=3600.0, ge=1, le=604_800, description="How long an address handed to a client stays good."
    )
    cache_bytes: int = Field(
        default=20 << 30,
        ge=0,
        description="Copies of remote artifacts on a machine; the longest unused goes first.",
    )


class WeightsSettings(_Group):
    """Where the weights of models come from, and how they are kept on a node."""

    folder: Path | None = Field(default=None, description="The node's cache; None means `weights` in home.")
    cache_bytes: int = Field(
        default=500 << 30, ge=0, description="Size of the cache; the longest unused goes first, never one in use."
    )
    offline: bool = Field(default=False, description="Fetch nothing: only what is cached, or lies in a folder.")
    copy_folders: bool = Field(default=False, description="Copy `file:` sources into the cache as well.")
    hub_url: str = Field(default="", max_length=2048, description="The hub; empty means HF_ENDPOINT or huggingface.co.")
    hub_token_file: Path | None = Field(
        default=None, description="File that holds the hub's token; None means HF_TOKEN or the hub's own login."
    )
    mlflow_url: str = Field(default="", max_length=2048, repr=False, description="MLflow's tracking server.")
    mlflow_token_file: Path | None = Field(default=None, description="File that holds MLflow's bearer token.")
    parallel: int = Field(default=4, ge=1, le=64, description="Files fetched at a time.")
    timeout_s: float = Field(
        default=30.0, gt=0, le=3600, allow_inf_nan=False, description="Bound on connecting, and on a silent server."
    )
    tries: int = Field(default=6, ge=1, le=100, description="Tries of a file that gets no further before it fails.")
    retry_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        allow_inf_nan=False,
        description="First pause; each is twice the one before.",
    )
    pull_s: float = Field(
        default=6 * 3600.0, gt=0, allow_inf_nan=False, description="Longest that fetching one model may take."
    )
    wait_s: float = Field(
        default=6 * 3600.0, ge=0, allow_inf_nan=False, description="Longest wait for another process that fetches it."
    )


class RetentionSettings(_Group):
    """How long ended jobs and their artifacts are kept."""

    age_s: float | None = Field(
        default=30 * 86_400.0, gt=0, description="Ended jobs older than this go, with their artifacts; None keeps them."
    )
    held_bytes: int | None = Field(
        default=None, gt=0, description="How much artifacts of jobs may take; the jobs that ended first go first."
    )
    grace_s: float = Field(
        default=3600.0, gt=0, description="How long bytes stay that no job refers to, and jobs that just ended."
    )
    period_s: float = Field(default=600.0, gt=0, description="How often the mesh looks for what may go.")


class LicenceSettings(_Group):
    """Which weights commercial work may reach besides those whose cards allow it."""

    accepted: list[str] = Field(
        default=[], max_length=1000, description="Models whose licence's condition the operator meets."
    )
    unknown: Literal["allow", "refuse"] = Field(
        default="allow", description="Commercial work on models without a model.yaml, whose terms nobody has named."
    )


class LogSettings(_Group):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level written.")
    style: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="JSON lines or coloured text; auto is text on a terminal."
    )


class Settings(BaseSettings):
    """Everything that can be set; ``REELMESH_EDGE__HTTP_PORT=9000`` sets ``edge.http_port``.

    Addresses that may carry a password are left out of its repr, which logs and tracebacks show.
    """

    model_config = SettingsConfigDict(env_prefix="REELMESH_", env_nested_delimiter="__", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".reelmesh"), description="Jobs database, artifacts, logs and scratch space.")
    model_repositories: list[Path] = Field(
        default=[Path("model_repository")], min_length=1, description="Folders of models, first one wins."
    )
    artifacts_url: str = Field(
        default="", repr=False, description="file:// or s3:// address; empty means a folder in home."
    )
    jobs_database_url: str = Field(
        default="", repr=False, description="SQLAlchemy address; empty means SQLite in home."
    )
    replica_network: Literal["loopback", "node"] = Field(
        default="loopback",
        description="Where replicas listen: the loopback, or the Ray node's own address if the edge may be elsewhere.",
    )
    tritonserver: Path | None = Field(default=None, description="The tritonserver binary; None means look for it.")
    edge: EdgeSettings = EdgeSettings()
    limits: LimitSettings = LimitSettings()
    inference: InferenceSettings = InferenceSettings()
    engines: EngineSettings = EngineSettings()
    worker: WorkerSettings = WorkerSettings()
    webhooks: WebhookSettings = WebhookSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    weights: WeightsSettings = WeightsSettings()
    retention: RetentionSettings = RetentionSettings()
    licences: LicenceSettings = LicenceSettings()
    log: LogSettings = LogSettings()
    intakes: list[IntakeSettings] = Field(
        default=[], max_length=32, description="Queues at brokers that jobs are taken from."
    )

    def resolved(self) -> "Settings":
        """The same with absolute paths and the defaults that depend on ``home`` filled in."""
        home = self.home.expanduser().resolve()
        # Links in the way to the key file stay, since Kubernetes changes a mounted Secret by turning one.
        keys = self.edge.keys_file
        edge = {} if keys is None else {"keys_file": keys.expanduser().absolute()}
        secrets = self.webhooks.secrets_file
        signed = {} if secrets is None else {"secrets_file": secrets.expanduser().absolute()}
        weights = (self.weights.folder or home / "weights").expanduser().absolute()
        return self.model_copy(
            update={
                **({"edge": self.edge.model_copy(update=edge)} if edge else {}),
                **({"webhooks": self.webhooks.model_copy(update=signed)} if signed else {}),
                "weights": self.weights.model_copy(update={"folder": weights}),
                "home": home,
                "model_repositories": [path.expanduser().resolve() for path in self.model_repositories],
                "artifacts_url": self.artifacts_url or f"file://{home}/artifacts",
                "jobs_database_url": self.jobs_database_url or f"sqlite:///{home}/jobs.sqlite",
            }
        )


Group = TypeVar("Group", bound=_Group)


def with_values(group: Group, name: str, values: Mapping[str, Any]) -> Group:
    """The group of that name with other values, checked as those of the environment are; raises :class:`BadInput`."""
    try:
        return type(group).model_validate(group.model_dump(exclude_unset=True) | dict(values))
    except ValidationError as error:
        raise settings_problem(error, name) from error


def settings_problem(error: Exception, *groups: str) -> BadInput:
    """A :class:`BadInput` that names the variable to mend.

    Args:
        error: the ValidationError that ``Settings()``, or the group in it, raised.
        groups: the way to that group.
    """
    if not isinstance(error, ValidationError):
        return BadInput(str(error), field="settings")
    first = error.errors(include_url=False)[0]
    variable = "REELMESH_" + "__".join(str(part) for part in (*groups, *first["loc"])).upper()
    problem = first["msg"][:1].lower() + first["msg"][1:]
    if "intakes" in first["loc"]:  # what stands there may hold a broker's password
        return BadInput(problem, field=variable, fix="correct the variable")
    return BadInput(f"{first['input']!r:.80}: {problem}", field=variable, fix="correct the variable or the flag")
