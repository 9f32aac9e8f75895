"""Which requests and answers are small enough to be decoded on the event loop; asked by the servers of a Ray replica.

The one invariant: what may take longer than a few milliseconds runs in a thread, so that one large tensor holds up
neither other requests nor the heartbeat that keeps the replica in the rotation.
"""

from typing import Final

from serving.protocol.oip import InferResponse
from serving.protocol.shared_memory import REGION

IN_PLACE_BYTES: Final = 256 << 10
"""As the gateway's: handing over to a thread and back costs as much as decoding that."""
_REGION: Final = REGION.encode()


def is_small(raw: bytes) -> bool:
    """Whether a request may be decoded in place: a short one that names no shared memory, which holds any number of
    bytes. (JSON may spell the name with escapes.)
    """
    return len(raw) <= IN_PLACE_BYTES and _REGION not in raw and b"\\u" not in raw


def answers_small(response: InferResponse) -> bool:
    """Whether a response may be encoded in place."""
    return sum(len(tensor.data) for tensor in response.outputs) <= IN_PLACE_BYTES
