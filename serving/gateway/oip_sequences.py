"""SequenceBook: which replica answers for a sequence of requests; used by OipMesh for models with sequence batching.

The one invariant: a sequence stays with its replica while that lives, however many replicas come and go beside it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from serving.protocol.endpoint import Endpoint

MOST: Final = 65_536
"""Sequences remembered; one forgotten is placed by its hash, which nearly always finds the same replica."""


class SequenceBook:
    """Remembers where sequences went."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, str], str] = OrderedDict()

    def pick(self, sequence: str, replicas: Sequence[Endpoint]) -> Endpoint:
        """The replica of a sequence; a new one goes to the highest hash (rendezvous hashing).

        Args:
            sequence: the sequence's id.
            replicas: those of its model, at least one.
        """
        key = (replicas[0].model, sequence)
        here = self._places.get(key)
        chosen = next((each for each in replicas if each.grpc == here), None) or rendezvous(sequence, replicas)
        self._places[key] = chosen.grpc
        self._places.move_to_end(key)
        if len(self._places) > MOST:
            self._places.popitem(last=False)
        return chosen


def rendezvous(sequence: str, replicas: Sequence[Endpoint]) -> Endpoint:
    """The replica whose hash with the sequence's id is highest: equal for every gateway that sees the same ones."""
    return max(replicas, key=lambda each: (_score(sequence, each.grpc), each.grpc))


def _score(sequence: str, address: str) -> bytes:
    return blake2b(f"{sequence}\0{address}".encode(errors="surrogatepass"), digest_size=8).digest()
