import ctypes
from types import ModuleType
from typing import Any

import pytest

from serving.backends.ray.parts.gpu import Gpu, find_gpu, load_tensorrt, missing, require
from serving.errors import MissingDependency


class Driver:
    """Stands for libcuda.so.1 with the calls that cuda.h declares; writes through the pointers it is given."""

    def __init__(self, gpus: list[tuple[str, int, int]], error: int = 0) -> None:
        self.gpus, self.error = gpus, error

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> int:  # noqa: N802
        name.value = self.gpus[device.value][0].encode()[: length - 1]
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = self.gpus[device.value][{75: 1, 76: 2}[attribute]]
        return 0


TWO = Driver([("NVIDIA H200", 9, 0), ("NVIDIA L4", 8, 9)])


def test_the_driver_says_name_and_compute_capability() -> None:
    assert find_gpu(0, lambda name: TWO) == Gpu(0, "NVIDIA H200", "9.0")
    assert find_gpu(1, lambda name: TWO) == Gpu(1, "NVIDIA L4", "8.9")


@pytest.mark.parametrize(
    ("driver", "number", "said"),
    [
        pytest.param(Driver([]), 0, "gpu: the NVIDIA driver shows 0 GPUs, and this needs number 0", id="none"),
        pytest.param(TWO, 2, "shows 2 GPUs, and this needs number 2", id="not so many"),
        pytest.param(Driver([("x", 9, 0)], error=100), 0, "shows 0 GPUs", id="does not start"),
    ],
)
def test_a_missing_gpu_is_told_from_a_missing_driver(driver: Driver, number: int, said: str) -> None:
    with pytest.raises(MissingDependency, match=said) as caught:
        find_gpu(number, lambda name: driver)
    assert "nvidia.com/gpu: 1" in str(caught.value)


def test_a_missing_driver_says_so() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(MissingDependency, match=r"driver: there is no NVIDIA driver: libcuda.so.1 does not load"):
        find_gpu(0, load)


def test_a_missing_package_says_where_it_is() -> None:
    def load(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    with pytest.raises(MissingDependency, match="tensorrt does not import: No module named 'tensorrt'") as caught:
        load_tensorrt(load)
    assert "reelmesh k8s job-tensorrt MODEL --part PART --gpu-type TYPE" in str(caught.value)


def test_everything_that_this_node_lacks_is_named_by_itself() -> None:
    """The real node; nothing is missing where TensorRT can run."""
    lacking = missing()
    fields = [str(error.field) for error in lacking]
    assert fields in ([], ["driver"], ["gpu"], ["tensorrt"], ["driver", "tensorrt"], ["gpu", "tensorrt"])
    if lacking:
        with pytest.raises(MissingDependency) as caught:
            require()
        assert all(error.problem in caught.value.problem for error in lacking)
