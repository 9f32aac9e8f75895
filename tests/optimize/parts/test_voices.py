"""Parts of neural voices: VITS of two libraries and XTTS say the same by files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.optimize.parts.exported import Recorded, export_part, recorded_family

AXES = {
    "mms_tts_eng": {
        "text_encoder": {"batch", "symbols"},
        "duration_encoder": {"batch", "symbols"},
        "flow": {"batch", "frames"},
        "decoder": {"frames"},
    },
    "vits_vctk": {"text_encoder": {"symbols"}, "flow": {"frames"}, "decoder": {"frames"}},
    "xtts_v2": {"conditioning_encoder": {"frames"}, "conditioning_perceiver": {"frames"}, "decoder": {"frames"}},
}
SMALL = [("mms_tts_eng", "flow"), ("mms_tts_eng", "duration_encoder"), ("vits_vctk", "flow")]
REST = [(model, part) for model, parts in AXES.items() for part in parts if (model, part) not in SMALL]


@pytest.fixture(scope="module")
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with recorded_family(request.param, tmp_path_factory.mktemp(request.param)) as recorded:
        yield recorded


@pytest.mark.parametrize("spoken", AXES, indirect=True)
def test_every_part_is_called_in_one_way_at_lengths_that_vary(spoken: Recorded) -> None:
    found = {}
    for name in spoken.recording.calls:
        (group,) = spoken.groups(name)
        assert group.constant_axes() == [], name
        found[name] = {axis for tensor in group.inputs for axis in tensor.axes if isinstance(axis, str)}
    assert found == AXES[spoken.recording.engine.model.name]


@pytest.mark.parametrize(("spoken", "name"), SMALL, indirect=["spoken"])
def test_small_parts_answer_as_torch_does_and_the_voice_stays_the_same(
    spoken: Recorded, tmp_path: Path, name: str
) -> None:
    check(spoken, tmp_path, name)


@pytest.mark.slow_export
@pytest.mark.parametrize(("spoken", "name"), REST, indirect=["spoken"])
def test_all_parts_answer_as_torch_does_and_the_voice_stays_the_same(
    spoken: Recorded, tmp_path: Path, name: str
) -> None:
    check(spoken, tmp_path, name)


def check(spoken: Recorded, folder: Path, name: str) -> None:
    parity, quality = spoken.gated(name, export_part(spoken.recording, name, folder), folder)
    assert max(row.relative for row in parity) < 1e-4
    measures = {row.measure: row.value for row in quality}
    assert measures.pop("length") == 0
    assert measures.pop("SNR") > 80
    assert measures == {}
