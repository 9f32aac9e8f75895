"""NetworkEngine: the base of every engine that runs a network with weights; families say how to load and generate.

The one invariant: a request is checked before it waits, and what fails, fails for itself alone.
"""

import asyncio
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Generic, NamedTuple, TypeVar

import structlog

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.cold_start import ColdStart
from serving.backends.ray.engines.network.faults import free_memory, is_out_of_memory
from serving.backends.ray.engines.network.placement import FLOATS, Placement, placement_of
from serving.backends.ray.engines.network.reading import read_ahead
from serving.backends.ray.engines.network.runner import Ran, Runner
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.threads import in_thread
from serving.backends.ray.parts.chosen import swap_in_chosen
from serving.backends.ray.parts.swap import Swapped
from serving.errors import BadInput, MissingDependency, OutOfMemory
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TASKS, Made, TaskRequest, TaskResult, adapter_of
from serving.repository.model import Model, Source

if TYPE_CHECKING:
    from serving.weights.held import HeldWeights

log = structlog.get_logger()

_PREPARED: Final = 4
"""Heavy requests that are prepared at a time, at least."""
_MOST_PREPARED: Final = 1024

Request = TypeVar("Request", bound=TaskRequest)
Prepared = TypeVar("Prepared")
Output = TypeVar("Output")

T = TypeVar("T")


class Written(NamedTuple):
    """A result before its files are stored.

    Args:
        values: fields of the result that are no files.
        files: the other fields: a file and its media type.
    """

    values: Mapping[str, object]
    files: Mapping[str, tuple[Path, str]] = {}


class NetworkEngine(ABC, Generic[Request, Prepared, Output]):
    """Loads one model and runs its requests in a thread of its own, in batches where they fit together.

    A family subclasses it and fills in :meth:`load`, :meth:`check`, :meth:`prepare`, :meth:`generate` and
    :meth:`write`; what it needs is in ``model``, ``placement`` and ``weights``.

    Attributes:
        precisions: that the family can run.
        uses_torch: whether the network is torch's, and not of a library that runs without it.
        lower: request fields that take memory, for the error that says so.
        heavy: whether a prepared request holds a whole clip or film in memory; the others wait unprepared.
        request_type: the task's request.
        model: the checked model.
        placement: device, precision and memory.
        weights: the folder with the weights, held until the engine is closed.
        parts: the same for every part with a source of its own, by name.
        swapped: exported parts that answer in the place of their modules, by name.
        threads: CPU threads the network may use.
        triton: where Triton serves a version of a part; None in a mesh without it.
        cold_start: what loading took.
    """

    precisions: ClassVar[Collection[str]] = FLOATS
    uses_torch: ClassVar[bool] = True
    lower: ClassVar[Sequence[str]] = ()
    heavy: ClassVar[bool] = False
    request_type: type[Request]

    def __init__(self, model: Model, context: EngineContext) -> None:
        if context.weights is None:
            raise MissingDependency(f"{model.name} needs weights, and this replica has no cache of them")
        self.model = model
        self.placement: Placement = placement_of(model, context, self.precisions, uses_torch=self.uses_torch)
        self.threads = max(context.threads, int(model.card.share.cpu))
        self._artifacts, self._scratch = context.artifacts, context.scratch
        self.triton = context.triton
        self._cache = context.weights
        self.built = self._cache.folder.parent / "tensorrt-ep"
        self.weights: HeldWeights = self._cache.hold(model)
        self.parts: dict[str, HeldWeights] = {}
        self.swapped: dict[str, Swapped] = {}
        try:
            for name, part in model.card.parts.items():
                self.parts[name] = self.hold(part.source)
            began = time.perf_counter()
            read_ahead([file for weights in (self.weights, *self.parts.values()) for file in weights.files])
            self._load()
            self.swapped = swap_in_chosen(self)
            if self.swapped:  # else torch keeps what the modules had, and nobody else on the card can use it
                free_memory(self.placement.device)
        except BaseException:
            self._let_go()
            raise
        held = [self.weights, *self.parts.values()]
        self.cold_start = ColdStart(
            download_s=sum(weights.download_s for weights in held),
            load_s=time.perf_counter() - began,
            weights_bytes=sum(weights.manifest.size_bytes for weights in held),
            device=self.placement.device,
            precision=self.placement.precision,
            source=model.card.source.text,
        )
        self._room = asyncio.Semaphore(self.most_prepared())
        self.runner: Runner[Prepared, Output] = Runner(
            model.name, self._generate, self._recover, most=self.most_in_batch(), lower=self.lower
        )

    @abstractmethod
    def load(self) -> None:
        """Load the network from ``self.weights.folder`` to ``self.placement``; blocks.

        Raises:
            BadInput: the checkpoint does not fit: names the file or the keys, and the fix, in one line.
            MissingDependency: a library is not installed.
        """

    def most_in_batch(self) -> int:
        """Requests that may share the network's passes; ``options.batch`` of the card, by default 1."""
        return int(str(self.model.card.options.get("batch", 1)))

    def most_prepared(self) -> int:
        """Requests that may be prepared at a time and wait so; fewer where one takes up hundreds of MiB."""
        return max(_PREPARED, 2 * self.most_in_batch()) if self.heavy else _MOST_PREPARED

    def check(self, request: Request) -> None:
        """Refuse what the model cannot do, before the request waits; fields within the card's ``limits`` already are.

        Raises:
            BadInput: names the field, its value and what is allowed.
        """

    @abstractmethod
    def prepare(self, request: Request, files: Mapping[str, Path]) -> Prepared:
        """Read and check the request's files, tokenise its text; blocks, in any thread.

        Args:
            request: checked.
            files: local path of every file the request refers to, by field.

        Raises:
            BadInput: a file is not what it should be, or a text longer than the model reads.
        """

    def batch_key(self, prepared: Prepared) -> Hashable | None:
        """Equal for requests that may share the network's passes; None shares with nobody."""
        return None

    @abstractmethod
    def generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Output]:
        """Run the network on requests of one key; blocks, in the network's own thread, one batch at a time.

        Calls ``steps(done, total)`` after each step, at least once a second, and lets through what it raises.
        """

    @abstractmethod
    def write(self, request: Request, output: Output, folder: Path) -> Written:
        """Make the result: encode pictures, clips, sound into ``folder``; blocks, in any thread."""

    def recover(self) -> None:
        """After a failure, in the network's thread: bring back what hooks and caches the failed batch left."""

    def unload(self) -> None:
        """Free the network: without more, every attribute that :meth:`load` made goes."""
        for name in self._made:
            self.__dict__.pop(name, None)

    def smallest(self) -> Request | None:
        """A small request to warm up with; None where the family has none."""
        return None

    def rehearsal(self) -> Prepared | None:
        """What :meth:`warm_up` runs: the smallest request, prepared; families whose requests bring files make it up."""
        request = self.smallest()
        return None if request is None else self.prepare(request, {})

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Answer one request; see :class:`serving.backends.base.Engine`.

        Raises:
            BadInput: it is not of the task, or over what the model can do.
            OutOfMemory: the share is too small for it.
        """
        if not isinstance(request, self.request_type):
            raise BadInput(f"the engine {self.model.card.engine!r} cannot answer {type(request).__name__}")
        self.check(request)
        async with self._room:
            call.checkpoint()
            began = time.perf_counter()
            with self.runner.coming():
                files = await self.files(request)
                prepared = await in_thread(call, lambda: self.prepare(request, files))
            prepare_s = time.perf_counter() - began
            ran = await self.runner.run(prepared, call, self.batch_key(prepared))
            del prepared
        return await self._finish(request, ran, prepare_s, call)

    async def files(self, request: Request) -> dict[str, Path]:
        """Local paths of the files that a request refers to, by field; raises :class:`NotFound`."""
        found = {name: getattr(request, name) for name in type(request).model_fields}
        refs = {name: ref for name, ref in found.items() if isinstance(ref, ArtifactRef)}
        return {name: await self._artifacts.local_path(ref) for name, ref in refs.items()}

    async def warm_up(self) -> None:
        """Run the family's smallest request, if it has one, and keep how long that took."""
        began = time.perf_counter()
        with self.runner.coming():
            prepared = await asyncio.to_thread(self.rehearsal)
        if prepared is None:
            return
        await self.runner.run(prepared, Call(), None)
        self.cold_start = self.cold_start.warmed(time.perf_counter() - began)

    async def close(self) -> None:
        """Let the batch at work end at its next step, free the network and let go of its weights."""
        await self.runner.close()
        await asyncio.to_thread(self.unload)
        for part in self.swapped.values():
            part.close()
        free_memory(self.placement.device)
        self._let_go()

    def hold(self, source: Source) -> "HeldWeights":
        """Weights beside the model's own, as those of an adapter; the caller closes them. Blocks."""
        return self._cache.hold(self.model.with_source(source))

    def _load(self) -> None:
        """Load; a device that is too small is told as such, and free again."""
        before = set(vars(self))
        try:
            self.load()
            self._made = vars(self).keys() - before
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            error.__traceback__ = None  # its frames hold what was loaded
            free_memory(self.placement.device)
            fix = "give it a larger share.gpu or device, or a smaller precision"
            raise OutOfMemory(f"{self.model.name} does not fit into memory", field=self.model.name, fix=fix) from error

    def _let_go(self) -> None:
        for weights in (self.weights, *self.parts.values()):
            weights.close()

    async def _finish(self, request: Request, ran: Ran[Output], prepare_s: float, call: Call) -> TaskResult:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix=f"{self.model.name}-") as folder:
            written = await in_thread(call, lambda: self.write(request, ran.output, Path(folder)))
            refs = {
                name: await self._artifacts.put_file(path, media_type=media_type)
                for name, (path, media_type) in written.files.items()
            }
        times = {"prepare": prepare_s, "queue": ran.queue_s, "run": ran.run_s, "finish": time.perf_counter() - began}
        made = Made(
            model=self.model.name,
            revision=self.weights.revision or self.model.card.source.revision or self.weights.digest[:12],
            adapter=adapter_of(request),
            seed=getattr(request, "seed", None),
            steps=ran.steps,
            batch=ran.batch,
            device=self.placement.device,
            precision=self.placement.precision,
            timings_s={name: round(seconds, 6) for name, seconds in times.items()},
        )
        return TASKS[self.model.card.task].result.model_validate({**written.values, **refs, "made": made})

    def _generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Output]:
        if not self.uses_torch:
            return self.generate(batch, steps)
        import torch

        torch.set_num_threads(self.threads)
        with torch.inference_mode():
            return self.generate(batch, steps)

    def _recover(self) -> None:
        self.recover()
        free_memory(self.placement.device)


def needs(load: Callable[[], T], package: str, extra: str = "models") -> T:
    """What ``load`` imports, or an error that says how to install it.

    Raises:
        MissingDependency: names the package and the command.
    """
    try:
        return load()
    except ImportError as error:
        raise MissingDependency(f"{package} is not installed", fix=f"pip install 'reelmesh[{extra}]'") from error
