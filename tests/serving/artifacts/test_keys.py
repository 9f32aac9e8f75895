import pytest

from serving.artifacts.keys import EXPIRING, PROVENANCE, REMOVING, Beside, object_key, read_key

SHA = "ab" + "0" * 62


@pytest.mark.parametrize("beside", ["", PROVENANCE, EXPIRING, REMOVING])
def test_a_key_tells_whose_it_is_and_what_lies_there(beside: Beside) -> None:
    assert read_key(object_key(SHA, beside)) == (SHA, beside)


@pytest.mark.parametrize("key", ["", "ab", f"cd/{SHA}", f"ab/{SHA}.txt", f"ab/{SHA[:-1]}", "readme.md", f"x/ab/{SHA}"])
def test_what_is_not_the_stores_has_no_key(key: str) -> None:
    assert read_key(key) is None
