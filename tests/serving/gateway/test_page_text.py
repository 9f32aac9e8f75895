import pytest

from serving.gateway.page_text import age_text, bytes_text, clock_text, duration_text, percent_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.3, "12 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [(-3, "just now"), (2, "just now"), (12, "12 s ago"), (185, "3 min ago"), (7300, "2 h ago"), (90_000, "1 day ago"),
     (200_000, "2 days ago")],
)  # fmt: skip
def test_ages_are_rounded_down(age: float, text: str) -> None:
    assert age_text(1000.0, 1000.0 + age) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (3400, "3.4 kB"), (12_345_678, "12 MB"), (5 * 10**12, "5000 GB")]
)
def test_sizes_have_decimal_units(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_progress_is_rounded_down_and_clocks_are_utc() -> None:
    assert percent_text(99.9) == "99 %"
    assert clock_text(0) == "1970-01-01T00:00:00Z"
