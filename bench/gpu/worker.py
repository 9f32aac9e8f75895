"""A child's work on one network: every format and way of running it, its batches and ONNX Runtime; run by bench.gpu.

The one invariant: a figure that cannot be had is told with its reason, and the next one is tried.
"""

import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bench.gpu import ort
from bench.gpu.children import Event
from bench.gpu.measure import Run, captured, difference, observed, timing
from bench.gpu.memory import MIB, weights_bytes
from bench.gpu.networks import Network, network
from bench.gpu.precision import Fp8Linear, Precision, Unfit, inputs_of, prepared

Mode = Literal["eager", "graph", "compiled", "compiled graph", "onnxruntime"]
"""A graph is a CUDA graph, of the eager or the compiled network."""
Tell = Callable[[Event], None]
COMPILERS: Final = {"cuda": "inductor", "cpu": "aot_eager"}
"""A CPU only checks that everything traces, which needs no C++ compiler."""
RECOMPILES: Final = 64
"""A UNet's residual blocks have more shapes than torch compiles of one function unasked."""
TOLD_OF_ERROR: Final = 256


class Group(NamedTuple):
    """Ways of running one copy of a network, one after another."""

    precision: Precision
    modes: tuple[Mode, ...]
    compiled: bool = False


BEFORE_BATCHES: Final = (
    Group("fp32", ("eager",)),
    Group("tf32", ("eager",)),
    Group("fp16", ("eager", "graph")),
    Group("bf16", ("eager", "graph")),
)
AFTER_BATCHES: Final = (
    Group("fp8", ("eager", "graph")),
    Group("bf16", ("compiled", "compiled graph"), compiled=True),
    Group("fp8", ("compiled", "compiled graph"), compiled=True),
)
"""Last, since compiling takes the longest: what the time does not suffice for is of these."""


class Case:
    """One network on one device, until its time is up.

    Args:
        subject: the network.
        device: where.
        seconds: no figure is begun after as many.
        per_figure: seconds of calls that a figure's median is of.
        tell: takes what is found.
    """

    def __init__(self, subject: Network, device: torch.device, seconds: float, per_figure: float, tell: Tell) -> None:
        self.subject = subject
        self.device = device
        self.seconds = seconds
        self.per_figure = per_figure
        self.tell = tell
        self.reference: Tensor | None = None
        self._until = time.monotonic() + seconds

    def figure(self, kind: str, fill: Callable[[Event], None], **known: object) -> None:
        """Tell of one figure, however it goes: what is known before, and what fill adds."""
        told: Event = dict(known)
        self.tell({"step": {"kind": kind, **known}})
        try:
            if time.monotonic() > self._until:
                raise Unfit(f"the {self.seconds:.0f} s of this network were over")
            fill(told)
        except Unfit as reason:
            told["skipped"] = str(reason)
        except torch.OutOfMemoryError as error:
            told["skipped"] = f"out of memory: {error}"[:TOLD_OF_ERROR]
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"[:TOLD_OF_ERROR]
        self.tell({kind: told})

    def all(self) -> None:
        """Everything that is measured of a network."""
        for group in BEFORE_BATCHES:
            self.group(group)
        self.batches()
        for group in AFTER_BATCHES:
            self.group(group)
        self.onnxruntime()

    def group(self, group: Group) -> None:
        """The modes of one format, on one copy of the network."""
        copies: list[nn.Module] = []

        def fill(told: Event) -> None:
            inputs = inputs_of(self.subject, self.subject.batch, group.precision, self.device)
            if not copies:
                if told["mode"] != group.modes[0]:
                    raise Unfit(f"{group.modes[0]} was not had")
                made = prepared(self.subject, group.precision, self.device)
                if group.compiled:
                    told["compile_s"] = self.compiled(made, inputs)
                copies.append(made)
            self.measured(told, copies[0], inputs)

        for mode in group.modes:
            self.figure("figure", fill, precision=group.precision, mode=mode, batch=self.subject.batch)
        copies.clear()
        self.freed()

    def measured(self, told: Event, made: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Time, memory and difference of one mode."""
        run: Run = partial(made, *inputs)
        if told["mode"].endswith("graph"):
            run = self.graphed(run)
        out = self.timed(told, run)
        if told["mode"].endswith("graph"):
            told["peak_mib"] = None  # a graph's activations lie in its own pool, which a replay does not allocate
        told["estimate_mib"] = estimate_mib(self.subject, made, inputs)
        layers = sum(isinstance(module, Fp8Linear) for module in made.modules())
        if layers:
            told["fp8_layers"] = layers
        if self.reference is None and told["precision"] == "fp32":
            self.reference = out
            self.tell({"facts": {"parameters": sum(each.numel() for each in made.parameters())}})
        elif self.reference is not None:
            told["difference"] = difference(out, self.reference)._asdict()

    def graphed(self, run: Run) -> Run:
        """The call as a CUDA graph."""
        if self.device.type != "cuda":
            raise Unfit("CUDA graphs need a CUDA device")
        return captured(run, self.device)

    def timed(self, told: Event, run: Run) -> Tensor:
        """Observe a call, then time it: what it gave."""
        out, peak = observed(run, self.device)
        told["peak_mib"] = peak
        told |= timing(run, self.device, self.per_figure)._asdict()
        return out

    def compiled(self, made: nn.Module, inputs: tuple[Tensor, ...]) -> float:
        """Compile the network's repeated parts, or all of it, and say how many seconds the first call took.

        Parts that repeat are compiled once for all their places, which costs a fraction of compiling the whole and runs
        as fast (diffusers calls it regional compilation).
        """
        import torch._dynamo

        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = RECOMPILES
        regions = [each for each in made.modules() if type(each).__name__ in self.subject.regions]
        for region in regions or [made]:
            region.compile(backend=COMPILERS[self.device.type], fullgraph=True, dynamic=False)
        began = time.monotonic()
        observed(partial(made, *inputs), self.device)
        return time.monotonic() - began

    def batches(self) -> None:
        """How time and memory grow with the batch, eager in bfloat16."""
        copies: list[nn.Module] = []

        def fill(told: Event) -> None:
            if not copies:
                copies.append(prepared(self.subject, "bf16", self.device))
            inputs = inputs_of(self.subject, told["batch"], "bf16", self.device)
            self.timed(told, partial(copies[0], *inputs))
            told["items_per_s"] = 1000 * told["batch"] / told["median_ms"]
            told["estimate_mib"] = estimate_mib(self.subject, copies[0], inputs)

        for batch in self.subject.batches:
            self.figure("batch", fill, batch=batch)
        copies.clear()
        self.freed()

    def onnxruntime(self) -> None:
        """ONNX Runtime's provider for the device: fp16 on CUDA, fp32 on a CPU."""
        precision: Precision = "fp16" if self.device.type == "cuda" else "fp32"

        def fill(told: Event) -> None:
            reason = ort.missing(self.device)
            if reason:
                raise Unfit(reason)
            inputs = inputs_of(self.subject, self.subject.batch, precision, self.device)
            began = time.monotonic()
            call = ort.runner(prepared(self.subject, precision, self.device), inputs)
            told["export_s"] = time.monotonic() - began
            out = self.timed(told, call.run)
            # torch's allocator does not see what ONNX Runtime holds.
            told["peak_mib"] = None
            if self.reference is not None:
                told["difference"] = difference(out, self.reference)._asdict()

        self.figure("figure", fill, precision=precision, mode="onnxruntime", batch=self.subject.batch)
        self.freed()

    def freed(self) -> None:
        """Give memory back before the next weights come."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def estimate_mib(subject: Network, made: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """What bench.gpu.memory thinks that a call needs at its peak."""
    batch, width = len(inputs[0]), inputs[0].element_size()
    return (weights_bytes(made) + sum(each.nbytes for each in inputs) + width * subject.activations(batch)) / MIB


def device_of(spec: Event) -> torch.device:
    """Where a child works. On a CPU with one thread: tiny networks are slower with more, when others work beside."""
    if spec["device"] == "cuda":
        # By its number, without which torch sets no share of the memory.
        return torch.device("cuda", 0)
    torch.set_num_threads(1)
    return torch.device("cpu")


def run(spec: Event, tell: Tell) -> None:
    """Measure one network as the parent asked: its name, tiny, the device, seconds and per_figure."""
    subject = network(spec["name"], tiny=spec["tiny"])
    tell({"facts": {"title": subject.title, "item": subject.item, "batch": subject.batch}})
    case = Case(subject, device_of(spec), spec["seconds"], spec["per_figure"], tell)
    with torch.no_grad():
        case.all()
