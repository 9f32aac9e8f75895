"""Cast: the voices of one network that are ready to speak, within a bound; used by XttsEngine in the network's thread.

The one invariant: never more than ``most`` are held; the one that spoke longest ago goes first.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Voice = TypeVar("Voice")


class Cast(Generic[Voice]):
    """Keeps what it took time to make.

    Args:
        most: voices held, at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._held: OrderedDict[Hashable, Voice] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Voice]) -> Voice:
        """The voice of a key, made if it is not held; one that could not be made is not remembered."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        made = make()
        self._held[key] = made
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return made

    def names(self) -> list[Hashable]:
        """Keys of the voices held, the one that spoke longest ago first."""
        return list(self._held)
