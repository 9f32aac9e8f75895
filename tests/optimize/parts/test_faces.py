"""Parts of models of faces: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.optimize.parts.exported import Recorded, export_part, recorded_family

AXES = {
    ("wav2lip", "generator"): {"batch"},
    ("face_animation", "keypoint_detector"): {"batch", "height", "width"},
    ("face_animation", "encoder"): {"height", "width"},
    ("face_animation", "generator"): {"batch", "height", "width", "rows", "columns"},
    ("face_motion", "audio2exp"): {"batch"},
    ("face_motion", "audio2pose"): {"batch"},
    ("manipulation_detection", "network"): {"batch"},
}
SLOW = [(model, part) for model, part in AXES if part in ("generator", "keypoint_detector", "network")]


def named(cases: Iterable[tuple[str, str]]) -> list[str]:
    return [" ".join(case) for case in cases]


class Families:
    """The recordings of models, each made when it is first asked for."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self._folder, self._held = folder, held
        self._made: dict[str, Recorded] = {}

    def __getitem__(self, model: str) -> Recorded:
        if model not in self._made:
            scratch = self._folder / model
            scratch.mkdir()
            self._made[model] = self._held.enter_context(recorded_family(model, scratch))
        return self._made[model]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    with ExitStack() as held:
        yield Families(tmp_path_factory.mktemp("faces"), held)


@pytest.mark.parametrize(("model", "part"), AXES, ids=named(AXES))
def test_every_part_is_called_in_one_way_at_several_sizes(families: Families, model: str, part: str) -> None:
    (group,) = families[model].groups(part)
    assert group.constant_axes() == []
    assert {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)} == AXES[model, part]


def test_one_file_moves_heads_in_every_style(families: Families) -> None:
    styles = {int(call.inputs["style"]) for call in families["face_motion"].recording.calls["audio2pose"]}
    assert styles == {0, 20, 45}


@pytest.mark.parametrize("part", ["audio2exp", "audio2pose"])
def test_motion_stays_the_same_with_either_network_exported(families: Families, tmp_path: Path, part: str) -> None:
    motion = families["face_motion"]
    rows, quality = motion.gated(part, export_part(motion.recording, part, tmp_path), tmp_path)
    assert max(row.relative for row in rows) < 2e-5
    assert quality


def test_a_pictures_features_are_the_same_at_any_size(families: Families, tmp_path: Path) -> None:
    animation = families["face_animation"]
    rows, quality = animation.gated("encoder", export_part(animation.recording, "encoder", tmp_path), tmp_path)
    assert max(row.relative for row in rows) < 1e-5
    assert {"PSNR", "SSIM"} <= {row.measure for row in quality}


@pytest.mark.slow_export
@pytest.mark.parametrize(("model", "part"), SLOW, ids=named(SLOW))
def test_parts_of_faces_answer_as_torch_does(families: Families, tmp_path: Path, model: str, part: str) -> None:
    families[model].gated(part, export_part(families[model].recording, part, tmp_path), tmp_path)
