import pytest

from serving.gateway.files import asked_part


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        pytest.param(None, 10, "whole", id="none"),
        pytest.param("bytes=0-3", 10, "part", id="a part"),
        pytest.param("bytes=-3", 10, "part", id="the end"),
        pytest.param("bytes=7-", 10, "part", id="from somewhere"),
        pytest.param("bytes=0-1, 4-5", 10, "part", id="two parts"),
        pytest.param("bytes=0-1,50-", 10, "whole", id="one of two outside"),
        pytest.param("bytes=50-", 10, "nothing", id="beyond"),
        pytest.param("bytes=-0", 10, "nothing", id="nothing of the end"),
        pytest.param("bytes=0-", 0, "nothing", id="an empty file"),
        pytest.param("bytes=5-2", 10, "whole", id="backwards"),
        pytest.param("lines=0-3", 10, "whole", id="another unit"),
        pytest.param("bytes=", 10, "whole", id="no range"),
        pytest.param("bytes=" + "9" * 5000 + "-", 10, "whole", id="a huge number"),
        pytest.param("bytes=" + ",".join(["0-0"] * 17), 10, "whole", id="too many parts"),
        pytest.param("bytes=٣-", 10, "whole", id="other digits"),
    ],
)
def test_a_range_is_answered_refused_or_ignored(header: str | None, size: int, part: str) -> None:
    assert asked_part(header, size) == part
