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
_KEY_BYTES: Final = 16
_SCORE_BYTES: Final = 8


class SequenceBook:
    """Remembers where sequences went."""

    def __init__(self) -> None:
        # By digest: an id may be as long as a message.
        self._places: OrderedDict[bytes, str] = OrderedDict()

    def pick(self, sequence: str, replicas: Sequence[Endpoint]) -> Endpoint:
        """The replica of a sequence; a new one goes to the highest hash (rendezvous hashing).

        Args:
            sequence: the sequence's id.
            replicas: those of its model, at least one.
        """
        key = _digest(sequence, replicas[0].model, _KEY_BYTES)
        here = self._places.get(key)
        chosen = next((each for each in replicas if each.grpc == here), None) or rendezvous(sequence, replicas)
        self._places[key] = chosen.grpc
        self._places.move_to_end(key)
        if len(self._places) > MOST:
            self._places.popitem(last=False)
        return chosen


def rendezvous(sequence: str, replicas: Sequence[Endpoint]) -> Endpoint:
    """The replica whose hash with the sequence's id is highest: equal for every gateway that sees the same ones."""
    return max(replicas, key=lambda each: (_digest(sequence, each.grpc, _SCORE_BYTES), each.grpc))


def _digest(sequence: str, other: str, size: int) -> bytes:
    return blake2b(f"{sequence}\0{other}".encode(errors="surrogatepass"), digest_size=size).digest()
