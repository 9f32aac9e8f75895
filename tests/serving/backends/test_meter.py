"""What a request cost, where it was done."""

import subprocess
import sys
import time

import pytest

from serving.backends.meter import Meter
from serving.errors import EngineFailed, Unavailable
from serving.protocol.tasks import TaskResult


class Clocks:
    def __init__(self) -> None:
        self.cpu, self.wall = 10.0, 100.0

    def pass_(self, cpu: float, wall: float) -> None:
        self.cpu += cpu
        self.wall += wall


def test_requests_side_by_side_share_each_moment_evenly() -> None:
    clocks = Clocks()
    meter = Meter(lambda: clocks.cpu, lambda: clocks.wall)
    clocks.pass_(5, 5)
    with meter.measure(gpu_share=0.5) as first:
        clocks.pass_(1, 2)
        with meter.measure() as second:
            clocks.pass_(4, 4)
        clocks.pass_(1, 1)
    assert (first.cpu_s, second.cpu_s) == (4.0, 2.0)
    assert first.gpu_s == pytest.approx(0.5 * (2 + 2 + 1))
    assert second.gpu_s == 0.0


def test_a_request_that_fails_is_measured_too() -> None:
    clocks = Clocks()
    meter = Meter(lambda: clocks.cpu, lambda: clocks.wall)
    with pytest.raises(ValueError, match="broken"), meter.measure() as cost:
        clocks.pass_(1, 1)
        raise ValueError("broken")
    with meter.measure() as after:
        clocks.pass_(2, 2)
    assert (cost.cpu_s, after.cpu_s) == (1.0, 2.0)


def test_work_of_a_child_process_counts_and_sleep_does_not() -> None:
    meter = Meter()
    with meter.measure() as worked:
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    with meter.measure() as slept:
        time.sleep(0.05)
    assert worked.cpu_s > 0.02
    assert slept.cpu_s < 0.04


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        pytest.param(Unavailable("full"), Unavailable, id="the mesh's own"),
        pytest.param(ValueError("broken"), EngineFailed, id="foreign"),
    ],
)
async def test_a_failure_is_answered_with_what_it_cost(raised: Exception, told: type[Exception]) -> None:
    clocks = Clocks()
    meter = Meter(lambda: clocks.cpu, lambda: clocks.wall)

    async def work() -> TaskResult:
        clocks.pass_(2, 4)
        raise raised

    served = await meter.served("violin", work(), gpu_share=0.5, replica="render-1")
    assert isinstance(served.result, told)
    assert (served.replica, served.cpu_s, served.gpu_s) == ("render-1", 2.0, 2.0)
