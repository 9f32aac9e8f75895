"""Who is still waited for while a batch is at work."""

import pytest

from serving.backends.call import Call
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import Cancelled, ReelmeshError


def test_a_request_that_left_is_known_to_be_gone() -> None:
    calls, left = [Call(), Call()], list[int]()

    def leave(index: int, _: ReelmeshError) -> None:
        left.append(index)

    steps = Steps(calls, leave)
    steps(1, 3)
    assert not steps.gone(0)
    calls[0].cancel()
    steps(2, 3)
    assert (steps.gone(0), steps.gone(1), left) == (True, False, [0])
    calls[1].cancel()
    with pytest.raises(Cancelled):
        steps(3, 3)
    assert left == [0, 1]
