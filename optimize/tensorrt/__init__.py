"""TensorRT plans of exported parts: planned anywhere, built on the GPU that runs them."""
