"""Parts of requests that several graphs share."""

import pytest
from pydantic import ValidationError

from graphs.inputs import MAX_SIDE_PX, MIN_FPS, MIN_SIDE_PX, VideoFormat, check_voice, format_of
from graphs.timeline import lay_out_turns
from serving.errors import BadInput
from serving.media.layout import panel_size
from serving.media.probe import MediaInfo, StreamInfo

SHORTEST_SPEECH_S = 0.3


@pytest.mark.parametrize("captions", [True, False])
@pytest.mark.parametrize("width", [MIN_SIDE_PX, 1280, MAX_SIDE_PX])
@pytest.mark.parametrize("height", [MIN_SIDE_PX, 720, MAX_SIDE_PX])
def test_every_picture_that_is_accepted_has_panels_that_a_face_fits(width: int, height: int, captions: bool) -> None:
    video = VideoFormat(width=width, height=height)
    sides = panel_size(video.width, video.height, heading=True, captions=captions)
    assert all(side % 2 == 0 and 16 <= side <= 4096 for side in sides)


def test_every_turn_has_a_frame_at_the_lowest_rate() -> None:
    segments = lay_out_turns([SHORTEST_SPEECH_S] * 50, MIN_FPS)
    assert all(segment.duration_s > 0 for segment in segments)


@pytest.mark.parametrize("wrong", [{"width": 126}, {"width": 1281}, {"height": 4098}, {"fps": 9}, {"fps": 61}])
def test_other_pictures_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        VideoFormat(**wrong)


def test_an_unknown_voice_is_answered_with_the_nearest_and_all_of_them() -> None:
    with pytest.raises(BadInput, match=r"did you mean .asha.*asha, ravi") as caught:
        check_voice("ashaa", {"ravi": "", "asha": ""}, field="voice")
    assert caught.value.field == "voice"


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        pytest.param(None, (1280, 720, 25), id="sound alone"),
        pytest.param((1920, 1080, 23.976), (1920, 1080, 24), id="film"),
        pytest.param((1080, 1920, 29.97), (1080, 1920, 30), id="upright"),
        pytest.param((7680, 4320, 120.0), (4096, 2304, 60), id="larger than the mesh makes"),
        pytest.param((97, 55, 8.0), (128, 128, 10), id="smaller than the mesh makes"),
        pytest.param((853, 479, 0.0), (852, 480, 25), id="odd sides, unknown rate"),
    ],
)
def test_a_medium_keeps_its_own_format_as_far_as_it_can(
    picture: tuple[int, int, float] | None, wanted: tuple[int, int, int]
) -> None:
    streams = [StreamInfo("audio", "aac")]
    if picture is not None:
        streams.append(StreamInfo("video", "h264", width=picture[0], height=picture[1], fps=picture[2]))
    video = format_of(MediaInfo("mp4", 1.0, True, tuple(streams), 1))
    assert (video.width, video.height, video.fps) == wanted
