"""The typed async client: ``async with Mesh("127.0.0.1:8001") as mesh: await mesh.infer("model", INPUT=array)``."""

from serving.client.mesh import Mesh
from serving.client.request import Step
from serving.client.result import Class, Result
from serving.client.retries import NEVER, Retries

__all__ = ["NEVER", "Class", "Mesh", "Result", "Retries", "Step"]
