"""`python -m loadtests.bench.plain_ray REPOSITORY PORT MODEL...`: Ray Serve as it comes, a baseline; run by
bench.baselines.

Raw float32 in, raw float32 out, through Serve's own HTTP proxy with its defaults. The one invariant: nothing of the
mesh is in it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


class Plain:
    """One model, one replica."""

    def __init__(self, file: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._shape = [1, *self._session.get_inputs()[0].shape[1:]]

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        array = np.frombuffer(await request.body(), np.float32).reshape(self._shape)
        output = self._session.run(None, {"X": array})[0]
        return Response(output.tobytes(), media_type="application/octet-stream")


def main(repository: Path, port: int, models: list[str]) -> None:
    """Serve until stdin ends, which it does with the process that started this one."""
    ray.init(address="local", num_cpus=len(models) + 1, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        for model in models:
            file = repository / model / "1" / "model.onnx"
            deployment: Any = serve.deployment(Plain)
            serve.run(deployment.bind(str(file.absolute())), name=model, route_prefix=f"/{model}")
        print("ready", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
