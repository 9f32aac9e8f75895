"""Which waiting requests run together; asked by the runner whenever its network is free.

The one invariant: the oldest request always goes, and only with requests of an equal key.
"""

from collections.abc import Hashable, Sequence


def next_batch(keys: Sequence[Hashable | None], most: int) -> list[int]:
    """Indexes of the requests that form the next batch.

    Args:
        keys: of the waiting requests, oldest first; None is a request that shares with nobody.
        most: requests in a batch.
    """
    if not keys:
        return []
    if keys[0] is None:
        return [0]
    return [index for index, key in enumerate(keys) if key == keys[0]][: max(1, most)]
