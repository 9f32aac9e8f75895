"""POSIX shared memory regions that clients registered, for inputs and outputs of requests; held by Ray replicas.

The one invariant: a request reaches only bytes inside a region that was registered, and only while its file has them.
"""

import mmap
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadInput, NotFound, Unavailable, Unsupported
from serving.protocol.oip import MAX_NAME_CHARS, Parameter, Parameters, Tensor

FOLDER: Final = Path("/dev/shm")  # noqa: S108  where Linux keeps POSIX shared memory
REGION: Final = "shared_memory_region"
BYTE_SIZE: Final = "shared_memory_byte_size"
OFFSET: Final = "shared_memory_offset"
MAX_REGIONS: Final = 1024
_LARGEST: Final = 2**63 - 1
OWN_PREFIX: Final = "reelmesh_"
"""What the names of the mesh's own regions begin with; nobody else may have them mapped."""
_RESERVED_KEY: Final = "triton_python_backend_shm_region_"


@dataclass(frozen=True, slots=True)
class Region:
    """A registered part of a region.

    Args:
        name: what requests call it.
        key: of shm_open, as the client gave it.
        offset: where it begins in the region, in bytes.
        byte_size: its length.
        memory: the mapping of the whole region.
        descriptor: of the open file, which tells the file's size at any time.
    """

    name: str
    key: str
    offset: int
    byte_size: int
    memory: mmap.mmap
    descriptor: int

    def status(self) -> dict[str, str | int]:
        """As OIP's status shows it."""
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size}

    def view(self, offset: int, byte_size: int) -> memoryview:
        """Those bytes of it, writable.

        Raises:
            BadInput: they are not all inside, or the file has been cut.
        """
        if offset > self.byte_size:
            raise BadInput(f"Invalid offset for shared memory region: '{self.name}'", field=OFFSET)
        if offset + byte_size > self.byte_size:
            raise BadInput(f"Invalid offset + byte size for shared memory region: '{self.name}'", field=BYTE_SIZE)
        start = self.offset + offset
        # A mapping past the end of its file kills the process that touches it.
        if start + byte_size > os.fstat(self.descriptor).st_size:
            raise BadInput(f"shared memory region '{self.name}' is smaller than it was registered", field=REGION)
        return memoryview(self.memory)[start : start + byte_size]

    def close(self) -> None:
        """Let go of the file; the mapping goes with the last tensor that lies in it."""
        os.close(self.descriptor)
        with suppress(BufferError):
            self.memory.close()


class Regions:
    """The regions registered with one replica."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map a region that a client made.

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
            region = self._regions.pop(each, None)
            if region is not None:
                region.close()

    def status(self, name: str = "") -> list[dict[str, str | int]]:
        """One region or all, as OIP's status shows them; raises :class:`NotFound`."""
        if name and name not in self._regions:
            raise NotFound(f"Unable to find system shared memory region: '{name[:MAX_NAME_CHARS]}'")
        return [region.status() for each, region in sorted(self._regions.items()) if not name or each == name]

    def input_data(self, tensor: str, parameters: Parameters) -> memoryview:
        """The bytes that an input's parameters name, not copied.

        Raises:
            BadInput: a parameter is missing, or the bytes are not all in the region.
            NotFound: there is no such region.
        """
        byte_size, offset = _size(tensor, parameters), _offset(tensor, parameters)
        return self._find(parameters).view(offset, byte_size).toreadonly()

    def place_output(self, tensor: Tensor, parameters: Parameters) -> Tensor:
        """Write an output where its parameters say.

        Returns:
            The tensor with the parameters that tell the client; its data need not be sent.

        Raises:
            BadInput: a parameter is missing, or the region is too small.
            NotFound: there is no such region.
        """
        byte_size, offset = _size(tensor.name, parameters), _offset(tensor.name, parameters)
        region, needed = self._find(parameters), len(tensor.data)
        view = region.view(offset, byte_size)
        if byte_size < needed:
            raise BadInput(
                f"shared memory size specified with the request for output '{tensor.name}' ({byte_size} bytes) "
                f"should be at least {needed} bytes to hold the results",
                field=BYTE_SIZE,
            )
        view[:needed] = tensor.data
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


def region_data(regions: Regions | None, tensor: str, parameters: Parameters) -> memoryview:
    """An input's bytes in shared memory; raises :class:`Unsupported` where there are no regions."""
    if regions is None:
        raise Unsupported(f"shared memory is not supported for '{tensor}'", field=tensor, fix="send the data itself")
    return regions.input_data(tensor, parameters)


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
    try:
        size = os.fstat(descriptor).st_size
        if offset + byte_size > size:
            raise BadInput(f"failed to register shared memory region '{name}': invalid args", field="byte_size")
        memory = mmap.mmap(descriptor, size)
    except (OSError, ValueError) as error:
        os.close(descriptor)
        raise BadInput(f"Unable to map shared memory region: '{key[:MAX_NAME_CHARS]}'", field="key") from error
    except BadInput:
        os.close(descriptor)
        raise
    return Region(name, key, offset, byte_size, memory, descriptor)
