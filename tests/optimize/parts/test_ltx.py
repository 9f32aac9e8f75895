"""Parts of LTX-Video and LTX-2: what varies as declared, and files that answer as torch does."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.optimize.parts.exported import Recorded, export_part, recorded_family

CLIP = {"frames", "height", "width"}
LTX: Mapping[str, set[str]] = {
    "transformer": {"batch", "tokens"},
    "vae_decoder": {"batch"} | CLIP,
    "text_encoder": {"batch"},
}
LTX_2: Mapping[str, set[str]] = {
    "transformer": {"batch", "tokens", "sounds"},
    "connectors": {"batch"},
    "vae_decoder": {"batch"} | CLIP,
    "audio_vae_decoder": {"batch", "length"},
    "vocoder": {"batch", "length"},
    "text_encoder": {"batch"},
}


@pytest.fixture(scope="module", params=["ltx_video", "ltx_video_i2v", "ltx2", "ltx2_i2v"])
def clips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family(request.param, tmp_path_factory.mktemp(request.param)) as recorded:
        yield recorded


def test_each_part_is_asked_in_one_way_at_several_sizes(clips: Recorded) -> None:
    expected = LTX_2 if "ltx2" in clips.recording.engine.model.name else LTX
    for name, axes in expected.items():
        (group,) = clips.groups(name)
        assert group.constant_axes() == [], name
        assert {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)} == axes


def test_nothing_of_a_clips_size_is_a_constant_of_the_transformer(clips: Recorded) -> None:
    (group,) = clips.groups("transformer")
    for word in ("num_frames", "height", "width", "fps", "rope_interpolation_scale"):
        assert f"'{word}'" not in str(group.traced.call)


def test_small_parts_answer_as_torch_does_and_clips_stay_the_same(clips: Recorded, tmp_path: Path) -> None:
    name = "vocoder" if "ltx2" in clips.recording.engine.model.name else "text_encoder"
    parity, quality = clips.gated(name, export_part(clips.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5
    assert quality


EXPORTED = [
    *(("ltx_video", name) for name in LTX),
    ("ltx_video_i2v", "transformer"),
    *(("ltx2", name) for name in LTX_2),
    ("ltx2_i2v", "transformer"),
]


@pytest.mark.slow_export
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("clips", "name"), EXPORTED, indirect=["clips"])
def test_parts_answer_as_torch_does_and_clips_stay_the_same(clips: Recorded, tmp_path: Path, name: str) -> None:
    parity, _ = clips.gated(name, export_part(clips.recording, name, tmp_path), tmp_path)
    assert max(row.relative for row in parity) < 5e-5
