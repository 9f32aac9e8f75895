"""Runs inside the throw-away TensorFlow environment of recipes.mediapipe: converts a TFLite file and runs it.

Started as ``python tflite_child.py MODEL.tflite OUT.onnx OPSET``; converts, prints one JSON line with
versions, then answers each line on stdin (``IN.npz OUT.npz``) with the seconds one run took. The one
invariant: nothing of the mesh is imported here, since the environment holds TensorFlow and nothing else.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Convert, then serve reference runs until stdin closes."""
    import numpy as np
    import onnx
    import tensorflow as tf  # type: ignore[import-untyped]
    import tf2onnx  # type: ignore[import-not-found]

    tflite, target, opset = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    tf2onnx.convert.from_tflite(str(tflite), opset=opset, output_path=str(target))
    interpreter = tf.lite.Interpreter(model_path=str(tflite), num_threads=1)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    versions = {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__, "onnx": onnx.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        source, result = line.split()
        with np.load(source) as data:
            interpreter.set_tensor(image["index"], data["image"])
        started = time.perf_counter()
        interpreter.invoke()
        seconds = time.perf_counter() - started
        outputs = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}
        np.savez(result, **outputs)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
