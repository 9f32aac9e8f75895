"""The podcast's portraits with their face meshes (as model face_landmarks finds them), for the tests of this folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from serving.backends.ray.engines.lipsync.face import Face, place_face, read_portrait
from serving.backends.ray.engines.lipsync.puppet import Puppet

HERE = Path(__file__).parent
PORTRAITS = HERE.parents[5] / "examples/podcast/portraits"


def points_of(name: str) -> np.ndarray:
    return np.array(json.loads((HERE / f"{name}_points.json").read_text()), np.float32)


def portrait_of(name: str) -> Path:
    return PORTRAITS / f"{name}.png"


@pytest.fixture(scope="session", params=["asha", "ravi"])
def face(request: pytest.FixtureRequest) -> Face:
    picture = read_portrait(portrait_of(request.param), request.param)
    return place_face(picture, points_of(request.param), 640, 720)


@pytest.fixture(scope="session")
def puppet(face: Face) -> Puppet:
    return Puppet(face)
