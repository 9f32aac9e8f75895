import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from serving.errors import BadInput, DeadlineExceeded, NotFound, OutOfMemory, QueueFull
from serving.placement import ledger as module
from serving.placement.ledger import AGEING_S, Ask, Ledger, Ticket, in_order

CARD = "a/0"


def ledger(**cards: float) -> Ledger:
    return Ledger({CARD: 100.0, **cards})


def ask(mib: float, rank: int = 2, card: str = CARD, **more: object) -> Ask:
    return Ask("sdxl#0", {card: mib}, rank, **more)  # type: ignore[arg-type]


def test_a_lease_is_had_at_once_where_there_is_room_and_ends_once() -> None:
    held = ledger()
    held.settle("sdxl#0", CARD, 30, 0.0)
    ticket = held.ask(ask(50), 0.0)
    assert ticket.is_granted
    assert held.free_mib(CARD) == 20
    assert held.end(ticket, 1.0) == []
    assert held.end(ticket, 2.0) == []
    assert held.free_mib(CARD) == 70


def test_who_waits_is_served_in_order_of_lanes_and_of_age() -> None:
    held = ledger()
    running = held.ask(ask(100), 0.0)
    low = held.ask(ask(100, rank=3), 0.0)
    medium = held.ask(ask(100, rank=2), 1.0)
    critical = held.ask(ask(100, rank=0), 2.0)
    late = held.ask(ask(100, rank=0), 3 * AGEING_S + 1)
    served = []
    while running is not None:
        (running,) = held.end(running, 10.0) or [None]
        served.append(running)
    assert served == [critical, medium, low, late, None]


def test_a_small_request_does_not_overtake_a_large_one_that_waits_longer_for_the_card() -> None:
    held = ledger(**{"a/1": 50.0})
    first = held.ask(ask(60), 0.0)
    large = held.ask(ask(80), 1.0)
    small = held.ask(ask(10), 2.0)
    assert not large.is_granted
    assert not small.is_granted
    assert held.ask(ask(10, card="a/1"), 2.0).is_granted
    assert held.end(first, 3.0) == [large, small]


def test_a_request_takes_all_its_cards_or_none() -> None:
    held = ledger(**{"a/1": 50.0})
    first = held.ask(ask(30, card="a/1"), 0.0)
    both = held.ask(Ask("ltx2#0", {CARD: 90.0, "a/1": 40.0}), 1.0)
    assert not both.is_granted
    assert held.free_mib(CARD) == 100
    assert held.end(first, 2.0) == [both]
    assert (held.free_mib(CARD), held.free_mib("a/1")) == (10, 10)


def test_a_lease_ends_with_its_process_its_replica_and_its_deadline() -> None:
    held = ledger()
    held.ask(ask(60, holder="pid 1"), 0.0)
    waiting = held.ask(ask(60, holder="pid 2"), 0.0)
    assert held.ended_with("pid 1", 1.0) == [waiting]
    held.settle("music#0", CARD, 40, 1.0)
    late = held.ask(Ask("music#0", {CARD: 50.0}, deadline=5.0), 2.0)
    assert held.next_deadline() == 5.0
    assert held.expire(4.9) == ([], [])
    assert held.expire(5.0) == ([late], [])
    assert (held.leave("sdxl#0", 6.0), held.leases, held.waiting) == ([], 0, 0)
    held.leave("music#0", 6.0)
    assert held.free_mib(CARD) == 100


def test_residents_that_keep_a_request_from_ever_running_are_told() -> None:
    held = ledger()
    held.settle("sdxl#0", CARD, 70, 0.0)
    waiting = held.ask(ask(50), 0.0)
    assert held.crowded() == {CARD: 20.0}
    with pytest.raises(OutOfMemory, match="a/0 has 30 MiB free, and music#0 needs 40 more: evict an idle model first"):
        held.settle("music#0", CARD, 40, 1.0)
    assert held.settle("sdxl#0", CARD, 10, 2.0) == [waiting]
    assert held.crowded() == {}


def test_after_a_crash_what_runs_is_taken_over_and_nothing_begins_until_there_is_room() -> None:
    held = ledger()
    (one, two) = held.restore([("sdxl#0", CARD, 50)], [ask(30), ask(40)], 0.0)
    assert held.free_mib(CARD) == -20
    waiting = held.ask(ask(10), 1.0)
    assert not waiting.is_granted
    assert held.end(one, 2.0) == [waiting]
    held.end(two, 3.0)
    held.end(waiting, 3.0)
    assert held.free_mib(CARD) == 50


def test_bad_requests_are_refused_by_name_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ledger()
    for wrong, kind, words in (
        (ask(101), BadInput, "sdxl#0: wants 101 MiB, and a/0 has 100: ask for smaller sizes"),
        (ask(-1), BadInput, "sdxl#0: peak on a/0: -1 is no amount of memory"),
        (ask(float("nan")), BadInput, "nan is no amount"),
        (ask(1, card="b/0"), NotFound, "sdxl#0: there is no card 'b/0': this node has a/0"),
        (ask(1, deadline=1.0), DeadlineExceeded, "sdxl#0: its deadline was over"),
    ):
        with pytest.raises(kind) as caught:
            held.ask(wrong, 2.0)
        assert words in str(caught.value)
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    held.ask(ask(100), 0.0)
    held.ask(ask(100), 0.0)
    with pytest.raises(QueueFull, match="1 requests wait for memory"):
        held.ask(ask(100), 0.0)
    assert (held.leases, held.waiting) == (1, 1)


CARDS = ("a/0", "a/1", "a/2")
MIB = st.integers(0, 100).map(float)


class Requests(RuleBasedStateMachine):
    """Requests, replicas and processes come and go in any order."""

    tickets = Bundle("tickets")

    @initialize()
    def begin(self) -> None:
        self.ledger, self.now = Ledger(dict.fromkeys(CARDS, 100.0)), 0.0
        self.resident: dict[tuple[str, str], float] = {}
        self.known: list[Ticket] = []
        self.over: set[int] = set()

    def begun(self, tickets: list[Ticket]) -> None:
        assert all(ticket.is_granted for ticket in tickets)
        assert tickets == sorted(tickets)

    @rule(replica=st.sampled_from("xyz"), card=st.sampled_from(CARDS), mib=MIB)
    def settle(self, replica: str, card: str, mib: float) -> None:
        try:
            self.begun(self.ledger.settle(replica, card, mib, self.now))
            self.resident[replica, card] = mib
        except OutOfMemory:
            assert mib - self.resident.get((replica, card), 0.0) > self.ledger.free_mib(card)

    @rule(
        target=tickets,
        replica=st.sampled_from("xyz"),
        mib=st.dictionaries(st.sampled_from(CARDS), MIB, min_size=1),
        rank=st.integers(0, 3),
        holder=st.sampled_from("pq"),
        seconds=st.one_of(st.none(), st.integers(1, 100)),
    )
    def ask(self, replica: str, mib: dict[str, float], rank: int, holder: str, seconds: int | None) -> Ticket:
        deadline = None if seconds is None else self.now + seconds
        ticket = self.ledger.ask(Ask(replica, mib, rank, deadline, holder), self.now)
        self.known.append(ticket)
        return ticket

    @rule(ticket=consumes(tickets))
    def end(self, ticket: Ticket) -> None:
        self.over.add(ticket.number)
        self.begun(self.ledger.end(ticket, self.now))

    @rule(replica=st.sampled_from("xyz"))
    def leave(self, replica: str) -> None:
        self.over |= {ticket.number for ticket in self.known if ticket.ask.replica == replica}
        self.resident = {key: mib for key, mib in self.resident.items() if key[0] != replica}
        self.begun(self.ledger.leave(replica, self.now))

    @rule(holder=st.sampled_from("pq"))
    def die(self, holder: str) -> None:
        self.over |= {ticket.number for ticket in self.known if ticket.ask.holder == holder}
        self.begun(self.ledger.ended_with(holder, self.now))

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        late, begun = self.ledger.expire(self.now)
        self.over |= {ticket.number for ticket in late}
        self.begun(begun)

    @invariant()
    def no_card_is_ever_given_more_than_it_has(self) -> None:
        running = [ticket for ticket in self.known if ticket.number not in self.over and ticket.is_granted]
        waiting = [ticket for ticket in self.known if ticket.number not in self.over and not ticket.is_granted]
        assert (self.ledger.leases, self.ledger.waiting) == (len(running), len(waiting))
        for card in CARDS:
            leased = sum(ticket.ask.mib.get(card, 0.0) for ticket in running)
            resident = sum(mib for (_, where), mib in self.resident.items() if where == card)
            assert leased + resident <= 100.0
            assert self.ledger.free_mib(card) == 100.0 - leased - resident

    def teardown(self) -> None:
        """Whoever can ever run does: end what runs, again and again, and nobody is left but who residents keep out."""
        while running := [ticket for ticket in self.known if ticket.number not in self.over and ticket.is_granted]:
            self.end(running[0])
        for replica in "xyz":
            for card in CARDS:
                self.begun(self.ledger.settle(replica, card, 0, self.now))
        while running := [ticket for ticket in self.known if ticket.number not in self.over and ticket.is_granted]:
            self.over.add(running[0].number)
            self.begun(self.ledger.end(running[0], self.now))
        assert self.ledger.waiting == 0


Requests.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
test_requests_come_and_go = Requests.TestCase


@pytest.mark.parametrize("seed", range(20))
def test_requests_over_several_nodes_never_wait_for_one_another_in_a_ring(seed: int) -> None:
    """Each leases node by node in order of names, holds what it has while it waits, and all come to their end."""
    dice = random.Random(seed)
    nodes = {node: Ledger({f"{node}/0": 100.0}) for node in "abcd"}
    todo = [
        in_order({node: Ask(f"r{number}", {f"{node}/0": dice.uniform(40, 100)}) for node in dice.sample("abcd", 3)})
        for number in range(30)
    ]
    held: list[list[tuple[str, Ticket]]] = [[] for _ in todo]
    done: set[int] = set()
    for now in range(10_000):
        index = dice.randrange(len(todo))
        if index in done or (held[index] and not held[index][-1][1].is_granted):
            continue
        if len(held[index]) < len(todo[index]):
            node, wanted = todo[index][len(held[index])]
            held[index].append((node, nodes[node].ask(wanted, float(now))))
            continue
        for node, ticket in held[index]:
            nodes[node].end(ticket, float(now))
        done.add(index)
        if len(done) == len(todo):
            break
    assert len(done) == len(todo)
    assert all(ledger.free_mib(f"{node}/0") == pytest.approx(100.0) for node, ledger in nodes.items())
