"""What a node has for TensorRT: driver, GPU, package; asked before a plan is built or run.

It asks the driver itself, since a node that builds plans may have torch without CUDA. The one invariant: what is
missing is told apart, each with its own fix: a driver, a GPU, the package.
"""

import ctypes
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, NamedTuple

from serving.errors import MissingDependency, foreign_text

JOB: Final = "reelmesh k8s job-tensorrt MODEL --part PART --gpu-type TYPE"
"""Renders the Job that builds where all is there."""
_DRIVER: Final = "libcuda.so.1"
_MAJOR: Final = 75
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR; the minor number's follows it (cuda.h)."""
_NAME_BYTES: Final = 256


class Gpu(NamedTuple):
    """A GPU: its number, its name, and its compute capability, such as ``9.0``."""

    number: int
    name: str
    capability: str


def find_gpu(number: int = 0, load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """A GPU of this node, as the driver tells it.

    Args:
        number: which.
        load: opens a library of the system.

    Raises:
        MissingDependency: there is no driver, or not so many GPUs.
    """
    try:
        driver = load(_DRIVER)
    except OSError as error:
        problem = f"there is no NVIDIA driver: {_DRIVER} does not load"
        raise MissingDependency(problem, field="driver", fix=f"run it on a node with a GPU: {JOB}") from error
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value <= number:
        problem = f"the NVIDIA driver shows {count.value} GPUs, and this needs number {number}"
        raise MissingDependency(problem, field="gpu", fix="give the container a GPU: limits: {nvidia.com/gpu: 1}")
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MAJOR + 1, device)
    return Gpu(number, name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}")


def load_tensorrt(load: Callable[[str], ModuleType] = importlib.import_module) -> ModuleType:
    """The package ``tensorrt``.

    Raises:
        MissingDependency: it is not installed, or its libraries do not load.
    """
    try:
        return load("tensorrt")
    except ImportError as error:
        problem = f"tensorrt does not import: {foreign_text(error)}"
        fix = f"run it in an image with NVIDIA's TensorRT, since PyPI has a stub of it alone: {JOB}"
        raise MissingDependency(problem, field="tensorrt", fix=fix) from error


def missing(number: int = 0) -> list[MissingDependency]:
    """Everything that TensorRT lacks here; empty where it can run."""
    found = []
    for ask in (lambda: find_gpu(number), load_tensorrt):
        try:
            ask()
        except MissingDependency as error:
            found.append(error)
    return found


def require(number: int = 0) -> tuple[Gpu, ModuleType]:
    """The GPU and the package.

    Raises:
        MissingDependency: names everything that is missing, each by itself.
    """
    lacking = missing(number)
    if lacking:
        problem = "; ".join(error.problem for error in lacking)
        fix = "; ".join(dict.fromkeys(error.fix or "" for error in lacking))
        raise MissingDependency(problem, field=", ".join(str(error.field) for error in lacking), fix=fix)
    return find_gpu(number), load_tensorrt()
