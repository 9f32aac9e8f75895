"""Keeps prepared portraits between clips, one for each clip being rendered; used by engine.

The one invariant: a puppet is lent to one thread at a time.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from serving.backends.ray.engines.lipsync.puppet import Puppet

PUPPETS_KEPT: Final = 6
"""Prepared portraits kept while nobody uses them, about 15 MB each at 640x720."""


class Stage:
    """Lends puppets by key, makes them when all of a key are lent, forgets the longest unused."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: OrderedDict[int, tuple[str, Puppet]] = OrderedDict()
        self._returned = 0

    @contextmanager
    def puppet(self, key: str, make: Callable[[], Puppet]) -> Iterator[Puppet]:
        """A puppet for the length of a ``with`` block."""
        puppet = self._take(key) or make()
        try:
            yield puppet
        finally:
            with self._lock:
                self._returned += 1
                self._idle[self._returned] = (key, puppet)
                while len(self._idle) > PUPPETS_KEPT:
                    self._idle.popitem(last=False)

    def clear(self) -> None:
        """Forget all that are not lent."""
        with self._lock:
            self._idle.clear()

    def _take(self, key: str) -> Puppet | None:
        with self._lock:
            for place, (its_key, puppet) in reversed(self._idle.items()):
                if its_key == key:
                    del self._idle[place]
                    return puppet
        return None
