"""Fixtures of the TensorRT tests."""

from .files import node, onnx_file

__all__ = ["node", "onnx_file"]
