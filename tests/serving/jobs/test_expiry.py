import pytest

from serving.artifacts.retention import digest
from serving.jobs.expiry import Stake, digests_in, judge
from serving.settings import RetentionSettings

NOW = 1_000_000.0
SIZES = {1: 10, 2: 20, 3: 30, 4: 40}


def ended(job_id: str, ago_s: float, *digests: int, owes: bool = False) -> Stake:
    return Stake(job_id, NOW - ago_s, owes, frozenset(digests))


def living(job_id: str, *digests: int) -> Stake:
    return Stake(job_id, None, False, frozenset(digests))


@pytest.mark.parametrize(
    ("stakes", "bounds", "by_age", "by_bytes"),
    [
        pytest.param([ended("a", 200), ended("b", 50), living("c")], {"age_s": 100}, ["a"], [], id="by age"),
        pytest.param([ended("a", 9e9)], {"age_s": None}, [], [], id="no age"),
        pytest.param(
            [ended("old", 90, 1), ended("mid", 80, 2), ended("new", 70, 3)],
            {"held_bytes": 50},
            [],
            ["old"],
            id="the oldest first until the rest fits",
        ),
        pytest.param(
            [ended("old", 90, 1, 4), ended("mid", 80, 4), ended("new", 70, 4)],
            {"held_bytes": 49},
            [],
            ["old"],
            id="what several refer to counts once",
        ),
        pytest.param(
            [living("live", 4), ended("old", 90, 1), ended("new", 70, 2)],
            {"held_bytes": 60},
            [],
            ["old"],
            id="what living jobs hold counts and stays",
        ),
        pytest.param(
            [living("live", 4), ended("new", 70, 1)], {"held_bytes": 1}, [], ["new"], id="living jobs alone are over it"
        ),
        pytest.param([ended("fresh", 5, 4)], {"held_bytes": 1}, [], [], id="a job that just ended stays for a while"),
        pytest.param(
            [ended("a", 90, 4, owes=True)], {"held_bytes": 1}, [], [], id="a job somebody has yet to hear of stays"
        ),
        pytest.param(
            [ended("a", 200, 4), ended("b", 60, 1)], {"age_s": 100, "held_bytes": 10}, ["a"], [], id="age goes first"
        ),
    ],
)
def test_which_jobs_go(stakes: list[Stake], bounds: dict[str, float], by_age: list[str], by_bytes: list[str]) -> None:
    verdict = judge(stakes, SIZES, RetentionSettings.model_validate({"grace_s": 30.0, **bounds}), NOW)
    assert (list(verdict.by_age), list(verdict.by_bytes)) == (by_age, by_bytes)


def test_whatever_looks_like_a_digest_is_kept() -> None:
    sha = "ab" * 32
    texts = [f'{{"audio": {{"sha256": "{sha}"}}}}', None, f"artifact:{'cd' * 32},", "ab" * 40]
    assert list(digests_in(texts)) == [digest(sha), digest("cd" * 32)]
