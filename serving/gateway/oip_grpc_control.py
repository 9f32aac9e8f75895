"""OIP's control calls over gRPC: model control, shared memory, log and trace settings; part of the gateway's handlers.

The one invariant: they only translate; what a call does is the ControlPlane's.
"""

from collections.abc import Awaitable, Callable

from tritonclient.grpc import service_pb2 as pb

from serving.gateway.oip_control import ControlPlane
from serving.gateway.oip_grpc_messages import (
    cuda_body,
    log_changes_of,
    log_response,
    parsed,
    regions_response,
    repository_parameters,
    trace_changes_of,
    trace_response,
    written,
)
from serving.protocol.oip_grpc import Context

Call = Callable[[bytes, Context], Awaitable[bytes]]


def control_calls(control: ControlPlane) -> dict[str, Call]:
    """Every control call by its name in the service."""
    calls = _Calls(control)
    return {
        "RepositoryModelLoad": calls.load,
        "RepositoryModelUnload": calls.unload,
        "TraceSetting": calls.trace,
        "LogSettings": calls.log,
        "SystemSharedMemoryStatus": calls.system_status,
        "SystemSharedMemoryRegister": calls.system_register,
        "SystemSharedMemoryUnregister": calls.system_unregister,
        "CudaSharedMemoryStatus": calls.cuda_status,
        "CudaSharedMemoryRegister": calls.cuda_register,
        "CudaSharedMemoryUnregister": calls.cuda_unregister,
    }


class _Calls:
    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    async def load(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.RepositoryModelLoadRequest, data)
        await self._control.load(message.model_name, repository_parameters(message.parameters))
        return written(pb.RepositoryModelLoadResponse())

    async def unload(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.RepositoryModelUnloadRequest, data)
        await self._control.unload(message.model_name, repository_parameters(message.parameters))
        return written(pb.RepositoryModelUnloadResponse())

    async def trace(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.TraceSettingRequest, data)
        return trace_response(await self._control.trace_settings(message.model_name, trace_changes_of(message)))

    async def log(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.LogSettingsRequest, data)
        return log_response(await self._control.log_settings(log_changes_of(message)))

    async def system_status(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.SystemSharedMemoryStatusRequest, data)
        regions = await self._control.regions("system", message.name)
        return regions_response(pb.SystemSharedMemoryStatusResponse, regions)

    async def system_register(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.SystemSharedMemoryRegisterRequest, data)
        body = {"key": message.key, "offset": message.offset, "byte_size": message.byte_size}
        await self._control.register("system", message.name, body)
        return written(pb.SystemSharedMemoryRegisterResponse())

    async def system_unregister(self, data: bytes, _context: Context) -> bytes:
        await self._control.unregister("system", parsed(pb.SystemSharedMemoryUnregisterRequest, data).name)
        return written(pb.SystemSharedMemoryUnregisterResponse())

    async def cuda_status(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.CudaSharedMemoryStatusRequest, data)
        return regions_response(pb.CudaSharedMemoryStatusResponse, await self._control.regions("cuda", message.name))

    async def cuda_register(self, data: bytes, _context: Context) -> bytes:
        message = parsed(pb.CudaSharedMemoryRegisterRequest, data)
        await self._control.register("cuda", message.name, cuda_body(message))
        return written(pb.CudaSharedMemoryRegisterResponse())

    async def cuda_unregister(self, data: bytes, _context: Context) -> bytes:
        await self._control.unregister("cuda", parsed(pb.CudaSharedMemoryUnregisterRequest, data).name)
        return written(pb.CudaSharedMemoryUnregisterResponse())
