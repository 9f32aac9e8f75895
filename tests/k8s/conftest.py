"""Fixtures of the Kubernetes tests: the rendered objects, KubeRay's schemas, and the overlays as built."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s.names import Manifest
from k8s.render import objects
from serving.repository.load import Repository, load_repository
from serving.repository.served import with_optional

from .crds import strict_schema
from .kustomizer import build

ROOT = Path(__file__).resolve().parents[2]
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "crds"))
OVERLAYS = ("k8s/base", "kustomize/overlays/local", "kustomize/overlays/gpu")


@pytest.fixture(scope="session")
def repository() -> Repository:
    return with_optional(load_repository([ROOT / "model_repository"]), [])


@pytest.fixture(scope="session")
def rendered(repository: Repository) -> list[Manifest]:
    return objects(repository)


@pytest.fixture
def service(repository: Repository) -> Manifest:
    """The RayService, fresh for every test that breaks it."""
    return next(each for each in objects(repository) if each["kind"] == "RayService")


@pytest.fixture(scope="session")
def overlay() -> Callable[[str], list[Manifest]]:
    """``overlay("kustomize/overlays/gpu")``: its objects, built by the tests' own builder."""
    return lambda name: build(ROOT / name)


@pytest.fixture(scope="session")
def ray_service_schema() -> dict[str, Any]:
    """KubeRay's schema of a RayService as strict JSON schema; it is KubeRay's data and not part of this project."""
    path = CRDS / "ray.io_rayservices.yaml"
    if not path.is_file():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}: set KUBERAY_CRDS to a folder that has {path.name}")
    return strict_schema(path)
