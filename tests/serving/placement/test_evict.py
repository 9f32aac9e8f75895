import math

from hypothesis import given
from hypothesis import strategies as st

from serving.placement.evict import HALF_LIFE_S, SOON_S, Resident, Uses, frees, leaving, next_wanted


def resident(name: str, mib: float = 1000, reload_s: float = 10, **more: object) -> Resident:
    return Resident(name, name.partition("#")[0], mib, reload_s, **more)  # type: ignore[arg-type]


def names(found: list[Resident] | None) -> list[str]:
    return [one.name for one in found or []]


def test_what_is_seldom_used_cheap_to_reload_and_large_goes_first() -> None:
    uses = Uses()
    for now in range(9):
        uses.used("often", float(now))
    for model in ("slow", "quick", "large"):
        uses.used(model, 9.0)
    there = [resident("often#0"), resident("slow#0", reload_s=60), resident("quick#0"), resident("large#0", mib=4000)]
    assert names(leaving(there, frees(900), uses, 10.0)) == ["large#0"]
    assert names(leaving(there[:3], frees(900), uses, 10.0)) == ["quick#0"]
    assert names(leaving(there[:2], frees(900), uses, 10.0)) == ["slow#0"]


def test_uses_fade() -> None:
    uses = Uses()
    for now in range(10):
        uses.used("old", float(now))
    uses.used("new", 6 * HALF_LIFE_S)
    assert names(leaving([resident("old#0"), resident("new#0")], frees(1), uses, 6 * HALF_LIFE_S)) == ["old#0"]


def test_what_is_in_use_or_announced_stays_whatever_is_wanted() -> None:
    uses = Uses()
    uses.announce("soon", 10.0 + SOON_S)
    there = [resident("busy#0", in_use=True), resident("soon#0"), resident("idle#0")]
    assert names(leaving(there, frees(500), uses, 10.0)) == ["idle#0"]
    assert leaving(there, frees(1500), uses, 10.0) is None
    uses.used("soon", 70.0)
    assert names(leaving(there, frees(1500), uses, 1e6)) == ["idle#0", "soon#0"]


def test_nobody_leaves_who_is_not_needed() -> None:
    uses = Uses()
    uses.used("large", 0.0)
    there = [resident("small#0", mib=100), resident("large#0", mib=5000)]
    assert names(leaving(there, frees(4950), uses, 1.0)) == ["large#0"]
    assert leaving(there, frees(0), uses, 1.0) == []


def test_who_leaves_and_comes_back_too_often_is_told() -> None:
    uses, told = Uses(), []
    for now in (0.0, 100.0, 200.0):
        uses.left("sdxl", now)
        told.append(uses.came_back("sdxl", now + 50))
    uses.left("music", 0.0)
    assert not uses.came_back("music", 1000.0)
    assert told == [False, False, True]
    assert uses.thrashing(260.0) == ["sdxl"]
    assert uses.thrashing(10_000.0) == []


def test_a_graph_announces_its_later_stages() -> None:
    graph = ["script", "sdxl", "clip", "sdxl", "lips"]
    found = next_wanted(graph, 1, {"sdxl": 10.0, "clip": 120.0}, 5.0)
    assert found == {"sdxl": 5.0, "clip": 15.0, "lips": 145.0}


RESIDENTS = st.lists(
    st.tuples(st.integers(0, 9000), st.integers(0, 100), st.booleans(), st.integers(0, 5)), max_size=12
)


@given(RESIDENTS, st.integers(1, 40_000))
def test_enough_leaves_and_no_single_one_could_have_stayed(told, needed: int) -> None:
    uses = Uses()
    there = []
    for index, (mib, reload_s, in_use, count) in enumerate(told):
        for use in range(count):
            uses.used(f"m{index}", float(use))
        there.append(resident(f"m{index}#0", float(mib), float(reload_s), in_use=in_use))
    found = leaving(there, frees(needed), uses, 10.0)
    free = sum(one.mib for one in there if not one.in_use)
    if found is None:
        assert free < needed
        return
    assert not any(one.in_use for one in found)
    freed = sum(one.mib for one in found)
    assert freed >= needed
    assert all(freed - one.mib < needed for one in found)
    assert all(math.isfinite(uses.worth(one, 10.0)) for one in found)
