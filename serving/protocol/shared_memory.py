"""POSIX shared memory regions that clients registered, for inputs and outputs of requests; held by Ray replicas.

Regions are read and written as files, never mapped: a client may cut its file at any time, and a process that touches
a mapping past the end of its file is killed. The one invariant: a request reaches only bytes inside a region that was
registered, and only while its file has them.
"""

import os
import re
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from serving.errors import BadInput, NotFound, TooLarge, Unavailable, Unsupported
from serving.protocol.oip import MAX_NAME_CHARS, Parameter, Parameters, Raw, Tensor

FOLDER: Final = Path("/dev/shm")  # noqa: S108  where Linux keeps POSIX shared memory
REGION: Final = "shared_memory_region"
BYTE_SIZE: Final = "shared_memory_byte_size"
OFFSET: Final = "shared_memory_offset"
MAX_REGIONS: Final = 1024
MOST_BYTES: Final = 256 << 20
"""What the inputs of one request may take, where nothing else is said; as ``limits.infer_bytes``."""
_LARGEST: Final = 2**63 - 1
OWN_PREFIX: Final = "reelmesh_"
"""What the names of the mesh's own regions begin with; nobody else may have them mapped."""
_RESERVED_KEY: Final = "triton_python_backend_shm_region_"


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Region:
    """A registered part of a region.

    Args:
        name: what requests call it.
        key: of shm_open, as the client gave it.
        offset: where it begins in the region, in bytes.
        byte_size: its length.
        descriptor: of the open file, closed when the last request that uses the region has ended.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int

    def __post_init__(self) -> None:
        """Bind the descriptor's life to this object's, so that its number is never another file's meanwhile."""
        weakref.finalize(self, os.close, self.descriptor)

    def status(self) -> dict[str, str | int]:
        """As OIP's status shows it."""
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size}

    def place(self, offset: int, byte_size: int) -> int:
        """Where those bytes of it are in the file; raises :class:`BadInput` unless they are all inside."""
        if offset > self.byte_size:
            raise BadInput(f"Invalid offset for shared memory region: '{self.name}'", field=OFFSET)
        if offset + byte_size > self.byte_size:
            raise BadInput(f"Invalid offset + byte size for shared memory region: '{self.name}'", field=BYTE_SIZE)
        return self.offset + offset

    def read(self, place: int, byte_size: int) -> memoryview:
        """A copy of the bytes at a place; blocks, and raises :class:`BadInput` where the file has been cut."""
        # Not a bytearray, which would be filled with zeros first.
        data, done = np.empty(byte_size, np.uint8).data, 0
        while done < byte_size:
            got = os.preadv(self.descriptor, [data[done:]], place + done)
            if not got:
                raise self._cut()
            done += got
        return data.toreadonly()

    def write(self, place: int, data: Raw) -> None:
        """Put bytes at a place; blocks.

        Raises:
            BadInput: the file has been cut, or the machine has no memory for it.
        """
        view, done = memoryview(data), 0
        # Writing past the end of a file would make it longer.
        if place + len(view) > os.fstat(self.descriptor).st_size:
            raise self._cut()
        try:
            while done < len(view):
                done += os.pwrite(self.descriptor, view[done:], place + done)
        except OSError as error:
            raise BadInput(
                f"shared memory region '{self.name}' cannot be written: {error.strerror}", field=REGION
            ) from error

    def _cut(self) -> BadInput:
        return BadInput(f"shared memory region '{self.name}' is smaller than it was registered", field=REGION)


class Regions:
    """The regions registered with one replica.

    Args:
        most_bytes: what the inputs of one request may take together, which a copy is made of.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region that a client made.

        Args:
            name: what requests will call it.
            key: of shm_open: a plain name, maybe with a slash in front.
            offset: where the registered part begins, in bytes.
            byte_size: its length.

        Raises:
            BadInput: the name is taken, the key is no plain name, there is no such region, or it is smaller than said.
            Unavailable: :data:`MAX_REGIONS` are registered.
        """
        if not 1 <= len(name) <= MAX_NAME_CHARS:
            raise BadInput(f"must have 1 to {MAX_NAME_CHARS} characters", field="name")
        if name in self._regions:
            raise BadInput(f"shared memory region '{name}' already in manager", field="name")
        if len(self._regions) >= MAX_REGIONS:
            raise Unavailable(f"{MAX_REGIONS} shared memory regions are registered", fix="unregister some")
        if not 0 <= offset <= _LARGEST or not 0 < byte_size <= _LARGEST - offset:
            raise BadInput(f"failed to register shared memory region '{name}': invalid args", field="byte_size")
        self._regions[name] = _open(name, key, offset, byte_size)

    def unregister(self, name: str = "") -> None:
        """Let go of a region, or of all; one that is not registered is let go of already."""
        for each in [name] if name else list(self._regions):
            self._regions.pop(each, None)

    def status(self, name: str = "") -> list[dict[str, str | int]]:
        """One region or all, as OIP's status shows them; raises :class:`NotFound`."""
        if name and name not in self._regions:
            raise NotFound(f"Unable to find system shared memory region: '{name[:MAX_NAME_CHARS]}'")
        return [region.status() for each, region in sorted(self._regions.items()) if not name or each == name]

    def input_data(self, tensor: str, parameters: Parameters, others: Iterable[Tensor] = ()) -> memoryview:
        """A copy of the bytes that an input's parameters name; blocks.

        Args:
            tensor: its name.
            parameters: its own.
            others: inputs of the same request that are read already.

        Raises:
            BadInput: a parameter is missing, or the bytes are not all in the region.
            TooLarge: the request's inputs in shared memory take too much together.
            NotFound: there is no such region.
        """
        byte_size, offset = _size(tensor, parameters), _offset(tensor, parameters)
        region = self._find(parameters)
        place = region.place(offset, byte_size)
        if byte_size + sum(len(other.data) for other in others if in_region(other.parameters)) > self._most_bytes:
            raise TooLarge(
                f"the inputs in shared memory take more than {self._most_bytes} bytes, up to '{tensor}'",
                field=BYTE_SIZE,
                fix="raise limits.infer_bytes",
            )
        return region.read(place, byte_size)

    def place_output(self, tensor: Tensor, parameters: Parameters) -> Tensor:
        """Write an output where its parameters say; blocks.

        Returns:
            The tensor with the parameters that tell the client; its data need not be sent.

        Raises:
            BadInput: a parameter is missing, or the region is too small.
            NotFound: there is no such region.
        """
        byte_size, offset = _size(tensor.name, parameters), _offset(tensor.name, parameters)
        region, needed = self._find(parameters), len(tensor.data)
        place = region.place(offset, byte_size)
        if byte_size < needed:
            raise BadInput(
                f"shared memory size specified with the request for output '{tensor.name}' ({byte_size} bytes) "
                f"should be at least {needed} bytes to hold the results",
                field=BYTE_SIZE,
            )
        region.write(place, tensor.data)
        told: dict[str, Parameter] = {**tensor.parameters, REGION: region.name, BYTE_SIZE: needed}
        if offset:
            told[OFFSET] = offset
        return Tensor(tensor.name, tensor.datatype, tensor.shape, tensor.data, told)

    def _find(self, parameters: Parameters) -> Region:
        name = str(parameters[REGION])
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{name[:MAX_NAME_CHARS]}'")
        return region


def key_name(key: str) -> str:
    """The name that a key of shm_open stands for in :data:`FOLDER`.

    Raises:
        BadInput: it is no plain name, maybe with a slash in front, or one of the mesh's own.
    """
    plain = key.removeprefix("/")
    if not re.fullmatch(r"[^/\x00]{1,255}", plain) or plain in (".", "..") or plain.startswith(OWN_PREFIX):
        raise not_there(key)
    return plain


def not_there(key: str) -> BadInput:
    """What Triton says of a key that leads to no region."""
    return BadInput(f"Unable to open shared memory region: '{key[:MAX_NAME_CHARS]}'", field="key")


def in_region(parameters: Mapping[str, object]) -> bool:
    """Whether a tensor's data lies, or shall lie, in shared memory."""
    return REGION in parameters


def region_data(
    regions: Regions | None, tensor: str, parameters: Parameters, others: Iterable[Tensor] = ()
) -> memoryview:
    """As :meth:`Regions.input_data`; raises :class:`Unsupported` where there are no regions."""
    if regions is None:
        raise Unsupported(f"shared memory is not supported for '{tensor}'", field=tensor, fix="send the data itself")
    return regions.input_data(tensor, parameters, others)


def _size(tensor: str, parameters: Parameters) -> int:
    value = parameters.get(BYTE_SIZE)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise BadInput(f"'{BYTE_SIZE}' of '{tensor}' must be a number of bytes", field=BYTE_SIZE)
    return value


def _offset(tensor: str, parameters: Parameters) -> int:
    value = parameters.get(OFFSET, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise BadInput(f"'{OFFSET}' of '{tensor}' must be a number of bytes", field=OFFSET)
    return value


def _open(name: str, key: str, offset: int, byte_size: int) -> Region:
    plain = key_name(key)
    if _RESERVED_KEY in plain:
        raise BadInput(
            f"cannot register shared memory region '{name}' with key '{key[:MAX_NAME_CHARS]}' as the key contains "
            f"the reserved substring '{_RESERVED_KEY}'",
            field="key",
        )
    try:
        descriptor = os.open(FOLDER / plain, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        raise not_there(key) from None
    if offset + byte_size > os.fstat(descriptor).st_size:
        os.close(descriptor)
        raise BadInput(f"failed to register shared memory region '{name}': invalid args", field="byte_size")
    return Region(name, key, offset, byte_size, descriptor)
