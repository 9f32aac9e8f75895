from typing import Any

import pytest

from optimize.tensorrt.options import Options
from serving.errors import BadInput


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"precision": "fp4"}, "precision: there is no precision 'fp4': use one of fp32", id="precision"),
        pytest.param({"typing": "loose"}, "typing: there is no typing 'loose'", id="typing"),
        pytest.param({"hardware": "all"}, "hardware: there is no hardware 'all'", id="hardware"),
        pytest.param({"level": 6}, "level: there is no level 6: use 0 to 5", id="level"),
        pytest.param({"workspace_mib": 0}, "workspace_mib: 0 MiB", id="workspace"),
        pytest.param({"profiles": 0}, "profiles: 0 profiles", id="profiles"),
        pytest.param({"precision": "fp8", "typing": "weak"}, "typing: TensorRT does not choose fp8", id="weak fp8"),
    ],
)
def test_options_that_mean_nothing_do_not_exist(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Options(**given)
