"""A replica that echoes, here or as a program: ``replica.py TAG`` prints its ports and serves until killed."""

import asyncio
import sys

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import function_models
from serving.protocol.oip import InferResponse, Tensor
from serving.settings import LimitSettings
from serving.telemetry import set_up_logs

CONFIG = """
name: "echo" backend: "ray"
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "WHO" data_type: TYPE_STRING dims: [ 1 ] } ]
"""


def echo_config():
    return text_format.Parse(CONFIG, ModelConfig())


def echoing(tag):
    async def infer(request):
        await asyncio.sleep(float(request.parameters.get("sleep_s", 0)))
        given = request.inputs[0]
        outputs = (Tensor("Y", "FP32", given.shape, given.data), Tensor.from_elements("WHO", [tag.encode()]))
        return InferResponse(request.model_name, outputs=outputs)

    return infer


async def main():
    set_up_logs()
    server = OipServer(OipPlane(function_models(echoing(sys.argv[1]), {"echo": echo_config()})), LimitSettings())
    print(*await server.start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
