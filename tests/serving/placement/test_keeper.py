import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.errors import NotFound, OutOfMemory
from serving.placement.cards import Card, Load
from serving.placement.keeper import HOST_MIB_PER_S, Held, Keeper, Place, resident_mib
from serving.placement.ledger import Ticket

SDXL = Load("sdxl", 6_000.0, 4_000.0)
CLIP = Load("clip", 12_000.0, 6_000.0, "long")
VOICE = Load("voice", 2_000.0, 1_000.0, "quick")


def keeper(*mib: float, host: float = 100_000.0) -> Keeper:
    return Keeper([Card(f"a/{index}", "a", each) for index, each in enumerate(mib)], 0.0, host)


def there(held: Keeper, load: Load, now: float = 0.0) -> Held:
    found = held.want(load, now)
    assert found is not None
    held.loaded(found.held)
    return found.held


def test_a_model_comes_from_disk_and_after_it_left_from_the_host() -> None:
    node = keeper(20_000)
    first = node.want(SDXL, 0.0)
    assert first is not None
    assert (first.source, first.evicted, first.seconds) == (Place.DISK, (), 4.0)
    node.loaded(first.held)
    second = node.want(CLIP, 1.0)
    assert second is not None
    assert second.evicted == ("sdxl",)
    node.loaded(second.held)
    again = node.want(SDXL, 2.0)
    assert again is not None
    assert (again.source, again.seconds) == (Place.HOST, 6_000 / HOST_MIB_PER_S)
    assert again.evicted == ("clip",)


def test_what_is_in_use_or_on_its_way_is_never_evicted() -> None:
    node = keeper(20_000)
    sdxl = there(node, SDXL)
    ticket = node.ask(sdxl, 0.0)
    assert node.want(CLIP, 1.0) is None
    with pytest.raises(OutOfMemory, match="sdxl is in use on a/0: wait for its requests to end"):
        node.evict("sdxl", "a/0", 1.0)
    with pytest.raises(NotFound, match="clip is not on a/0"):
        node.evict("clip", "a/0", 1.0)
    node.end(sdxl, ticket, 2.0)
    coming = node.want(CLIP, 3.0)
    assert coming is not None
    assert node.want(SDXL, 3.0) is None
    assert node.failed(coming.held, 4.0) == []
    assert node.ledger.free_mib("a/0") == 20_000


def test_quick_models_keep_their_peak_and_never_wait() -> None:
    node = keeper(20_000)
    voice = there(node, VOICE)
    assert node.ledger.free_mib("a/0") == 17_000
    sdxl = there(node, SDXL)
    running = node.ask(sdxl, 0.0)
    assert running.is_granted
    assert node.ask(voice, 0.0, rank=3).is_granted
    waiting = [node.ask(sdxl, 0.0) for _ in range(2)]
    assert [ticket.is_granted for ticket in waiting] == [True, False]
    assert node.end(sdxl, running, 1.0) == [waiting[1]]


def test_the_card_whose_models_are_worth_the_least_is_taken() -> None:
    node = keeper(12_000, 12_000)
    sdxl, other = there(node, SDXL), there(node, Load("music", 6_000.0, 4_000.0))
    assert sdxl.card != other.card
    for now in range(5):
        node.end(other, node.ask(other, float(now)), float(now))
    found = node.want(Load("words", 5_000.0, 4_000.0), 10.0)
    assert found is not None
    assert found.evicted == ("sdxl",)
    assert node.find("music") is other
    assert resident_mib(node) == {sdxl.card: 5_000.0, other.card: 6_000.0}


def test_a_host_that_is_full_keeps_what_is_worth_more() -> None:
    node = keeper(12_000, host=7_000)
    sdxl = there(node, SDXL)
    for now in range(5):
        node.end(sdxl, node.ask(sdxl, float(now)), float(now))
    there(node, Load("music", 5_500.0, 3_000.0), 5.0)
    assert list(node.host.models) == ["sdxl"]
    there(node, Load("words", 6_000.0, 3_000.0), 6.0)
    assert list(node.host.models) == ["sdxl"]


def test_who_comes_and_goes_is_told() -> None:
    node, told = keeper(12_000), []
    for now in range(0, 700, 100):
        load = (SDXL, Load("music", 6_000.0, 4_000.0))[now // 100 % 2]
        found = node.want(load, float(now))
        assert found is not None
        node.loaded(found.held)
        told.append(found.thrashes)
    assert told[-1]
    assert "sdxl" in node.uses.thrashing(700.0)


LOADS = [
    Load(f"m{index}", float(weights), float(peak), pace)  # type: ignore[arg-type]
    for index, (weights, peak, pace) in enumerate(
        [(3000, 1000, "any"), (5000, 4000, "any"), (8000, 2000, "long"), (1000, 500, "quick"), (2000, 7000, "any")]
    )
]


class Studio(RuleBasedStateMachine):
    """Requests for five models on two cards that hold two or three of them."""

    @initialize()
    def begin(self) -> None:
        self.node, self.now = keeper(12_000, 10_000, host=6_000), 0.0
        self.running: list[tuple[Held, Ticket]] = []
        self.coming: list[Held] = []

    @rule(index=st.integers(0, len(LOADS) - 1))
    def request(self, index: int) -> None:
        self.now += 1
        held = self.node.find(LOADS[index].model)
        if held is None:
            busy = {one.name for one, _ in self.running}
            found = self.node.want(LOADS[index], self.now)
            if found is None:
                assert busy or self.coming
                return
            assert not any(name.startswith(f"{model}@") for model in found.evicted for name in busy)
            self.coming.append(found.held)
        elif held.ready:
            self.running.append((held, self.node.ask(held, self.now)))

    @rule(ok=st.booleans())
    def arrive(self, *, ok: bool) -> None:
        if self.coming:
            held = self.coming.pop(0)
            self.node.loaded(held) if ok else self.node.failed(held, self.now)

    @rule(index=st.integers(0, 20))
    def end(self, index: int) -> None:
        if self.running:
            held, ticket = self.running.pop(index % len(self.running))
            self.node.end(held, ticket, self.now)

    @invariant()
    def cards_and_host_hold_what_they_have(self) -> None:
        for card, usable in self.node.usable.items():
            kept = sum(held.kept_mib for (_, where), held in self.node.held.items() if where == card)
            leased = sum(held.leased_mib for held, ticket in self.running if held.card == card and ticket.is_granted)
            assert kept + leased <= usable
            assert self.node.ledger.free_mib(card) == usable - kept - leased
        assert sum(self.node.host.models.values()) <= self.node.host.capacity_mib
        assert all((held.load.model, held.card) in self.node.held for held, _ in self.running)

    def teardown(self) -> None:
        """Whoever waits runs once the others end, and then every model can be had."""
        while self.running:
            index = next(i for i, (_, ticket) in enumerate(self.running) if ticket.is_granted)
            self.end(index)
        while self.coming:
            self.arrive(ok=True)
        for load in LOADS:
            if self.node.find(load.model) is None:
                found = self.node.want(load, self.now)
                assert found is not None
                self.node.loaded(found.held)


Studio.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
test_a_studio_of_models = Studio.TestCase
