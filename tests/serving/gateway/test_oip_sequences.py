"""Where sequences go, and that they stay there."""

import tracemalloc

from serving.gateway import oip_sequences
from serving.gateway.oip_sequences import SequenceBook, rendezvous
from serving.protocol.endpoint import Endpoint


def replicas(count):
    return [Endpoint(model="m", http="h:1", grpc=f"h:{1000 + number}") for number in range(count)]


def test_sequences_are_spread_evenly_and_equally_by_every_gateway():
    found = [rendezvous(str(number), replicas(4)).grpc for number in range(2000)]
    assert found == [rendezvous(str(number), replicas(4)[::-1]).grpc for number in range(2000)]
    assert all(400 < found.count(place) < 600 for place in set(found))


def test_a_sequence_stays_while_its_replica_lives_though_others_come():
    book = SequenceBook()
    first = {number: book.pick(str(number), replicas(2)).grpc for number in range(100)}
    assert {number: book.pick(str(number), replicas(5)).grpc for number in range(100)} == first


def test_only_the_sequences_of_a_dead_replica_move():
    book = SequenceBook()
    before = {number: book.pick(str(number), replicas(3)).grpc for number in range(100)}
    left = replicas(3)[:2]
    for number in range(100):
        after = book.pick(str(number), left).grpc
        assert after == before[number] or before[number] == "h:1002"


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(oip_sequences, "MOST", 10)
    book = SequenceBook()
    for number in range(100):
        book.pick(str(number), replicas(2))
    assert len(book._places) == 10


def test_ids_of_any_length_take_little_memory():
    book = SequenceBook()
    tracemalloc.start()
    for number in range(64):
        book.pick(f"{number:04d}" * (64 << 10), replicas(2))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 64 << 10
