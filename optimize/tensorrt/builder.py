"""The builder call itself: a parsed ONNX file, a configuration and TensorRT's minutes; the seam behind build_plan.

:class:`Builder` is what planning needs of TensorRT; :class:`NvidiaBuilder` is TensorRT. The one invariant: all that is
decided is decided before, so that this only carries it out and names TensorRT's own words where it fails.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

from optimize.tensorrt.flags import Flags, Target
from optimize.tensorrt.options import Options
from serving.backends.ray.parts.gpu import Gpu
from serving.errors import EngineFailed, foreign_text
from serving.repository.plan_file import Hardware, Profile

Notify = Callable[[str], None]

_MIB: Final = 1 << 20
_LEVELS: Final[dict[Hardware, str]] = {
    "this": "NONE",
    "same_capability": "SAME_COMPUTE_CAPABILITY",
    "ampere_plus": "AMPERE_PLUS",
}
_MOST_ERRORS: Final = 3


class Request(NamedTuple):
    """One build: the file, its profiles, the chosen flags, and the timing cache's bytes."""

    onnx: Path
    profiles: tuple[Profile, ...]
    flags: Flags
    options: Options
    timing: bytes


class Built(NamedTuple):
    """The serialised plan, and the timing cache with what was measured."""

    plan: "bytes | memoryview"
    timing: bytes


class Builder(Protocol):
    """Builds plans on one GPU."""

    @property
    def target(self) -> Target:
        """The GPU and the TensorRT."""

    def build(self, request: Request, notify: Notify) -> Built:
        """Build; ``notify`` is told of the phases.

        Raises:
            EngineFailed: the file does not parse, or no kernel fits.
        """

    def merge(self, there: bytes, found: bytes) -> bytes:
        """Two timing caches as one."""


class NvidiaBuilder:
    """TensorRT 10 or newer.

    Args:
        gpu: that builds.
        module: the package ``tensorrt``.
    """

    def __init__(self, gpu: Gpu, module: ModuleType) -> None:
        self._trt = module
        self._log = _logger(module)
        self.target = Target(gpu.capability, gpu.name, str(module.__version__))

    def build(self, request: Request, notify: Notify) -> Built:
        """See :class:`Builder`."""
        trt = self._trt
        self._log.errors.clear()
        builder = self._started()
        kinds = trt.NetworkDefinitionCreationFlag
        network = builder.create_network(1 << int(kinds.STRONGLY_TYPED) if request.flags.strong else 0)
        parser = trt.OnnxParser(network, self._log)
        notify("parse")
        if not parser.parse_from_file(str(request.onnx)):
            errors = [_parse_error(parser.get_error(index)) for index in range(parser.num_errors)]
            raise EngineFailed(f"TensorRT cannot parse it: {_listed(errors)}", field=str(request.onnx))
        config = builder.create_builder_config()
        self._configure(config, request, notify)
        for profile in request.profiles:
            config.add_optimization_profile(self._profile(builder, profile))
        cache = self._timing(config, request.timing)
        notify("build")
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            fix = "lower the profiles' largest sizes, give more workspace, or read TensorRT's log above"
            raise EngineFailed(f"TensorRT built no plan: {_listed(self._log.errors)}", field=str(request.onnx), fix=fix)
        return Built(memoryview(plan), bytes(cache.serialize()))

    def merge(self, there: bytes, found: bytes) -> bytes:
        """See :class:`Builder`; where TensorRT refuses to combine them the newer one stays."""
        config = self._started().create_builder_config()
        joined, other = config.create_timing_cache(there), config.create_timing_cache(found)
        if joined is None or other is None or not joined.combine(other, ignore_mismatch=False):
            return found
        return bytes(joined.serialize())

    def _started(self) -> Any:  # noqa: ANN401  tensorrt is not here
        try:
            return self._trt.Builder(self._log)
        except TypeError as error:  # pybind11's word for a builder that could not be made: CUDA does not start
            fix = "see whether another process holds the GPU's memory, and whether driver and image fit (nvidia-smi)"
            raise EngineFailed(f"TensorRT does not start: {_listed(self._log.errors)}", field="gpu", fix=fix) from error

    def _configure(self, config: Any, request: Request, notify: Notify) -> None:  # noqa: ANN401  the same
        trt, options = self._trt, request.options
        for name in request.flags.on:
            config.set_flag(getattr(trt.BuilderFlag, name))
        for name in request.flags.off:
            config.clear_flag(getattr(trt.BuilderFlag, name))
        config.builder_optimization_level = options.level
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware])
        if options.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
        config.progress_monitor = _monitor(trt, notify)

    @staticmethod
    def _profile(builder: Any, profile: Profile) -> Any:  # noqa: ANN401  the same
        made = builder.create_optimization_profile()
        for name, shapes in profile.items():
            made.set_shape(name, shapes.min, shapes.opt, shapes.max)
        return made

    def _timing(self, config: Any, there: bytes) -> Any:  # noqa: ANN401  the same
        """The cache that a build reads and fills; an empty one where TensorRT does not take the old one."""
        cache = config.create_timing_cache(there)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, ignore_mismatch=False)
        return cache


def _logger(trt: ModuleType) -> Any:  # noqa: ANN401  a class that only tensorrt can be the base of
    """Keeps what TensorRT calls errors, so that a failure can say why."""

    class Kept(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(text)

    return Kept()


def _monitor(trt: ModuleType, notify: Notify) -> Any:  # noqa: ANN401  the same
    """Tells of the outermost phase's steps, in percent."""

    class Progress(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if steps := self._steps.get(phase_name):
                notify(f"build: {phase_name}, {100 * (step + 1) // steps} %")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Progress()


def _parse_error(error: Any) -> str:  # noqa: ANN401  tensorrt's ParserError
    """An unknown operator is told with the node that holds it."""
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{error.desc()}"


def _listed(errors: list[str]) -> str:
    more = f" and {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
    return foreign_text("; ".join(errors[:_MOST_ERRORS]) or "it gave no reason") + more
