"""Voices held within a bound."""

import pytest

from serving.backends.ray.engines.coqui.cast import Cast


def test_the_voice_that_spoke_longest_ago_goes_first() -> None:
    made: list[str] = []
    cast: Cast[str] = Cast(2)

    def get(name: str) -> str:
        return cast.get(name, lambda: made.append(name) or name.upper())

    assert [get(name) for name in ("anna", "ben", "anna", "carl", "anna", "ben")] == [
        "ANNA", "BEN", "ANNA", "CARL", "ANNA", "BEN",
    ]  # fmt: skip
    assert made == ["anna", "ben", "carl", "ben"]
    assert cast.names() == ["anna", "ben"]


def test_a_voice_that_could_not_be_made_is_not_remembered() -> None:
    cast: Cast[float] = Cast(2)
    with pytest.raises(ZeroDivisionError):
        cast.get("anna", lambda: 1 / 0)
    assert cast.names() == []
    assert cast.get("anna", lambda: 1.0) == 1.0


def test_at_least_one_voice_is_held() -> None:
    cast: Cast[int] = Cast(0)
    cast.get("anna", lambda: 1)
    assert cast.names() == ["anna"]
