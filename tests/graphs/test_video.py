"""Films: which picture a scene gets, how fast it is told, when a duration is hopeless."""

import pytest

from graphs.script import parse_scenes
from graphs.video import FASTEST_SPEECH, VideoRequest, chosen_images, fitting_speed, shortest_s, transition_s
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import SpeechResult, Word

SCRIPT = "# One\n[image: lake]\nWords.\n# Two\nWords.\n# Three\nWords.\n# Four\nWords."


def ref(letter: str) -> ArtifactRef:
    return ArtifactRef(sha256=letter * 64, size_bytes=1)


def spoken(said_s: float, pauses_s: float) -> SpeechResult:
    words = [Word(text="word", start_s=0.0, end_s=said_s)] if said_s else []
    return SpeechResult(audio=ref("a"), sample_rate_hz=24000, duration_s=said_s + pauses_s, words=words)


def test_scenes_take_the_picture_they_name_and_the_others_take_turns() -> None:
    images = {"hill": ref("b"), "lake": ref("c"), "sea": ref("d")}
    request = VideoRequest(title="t", script=SCRIPT, images=images, duration_s=60)
    assert chosen_images(request, parse_scenes(SCRIPT)) == [images["lake"], images["hill"], images["sea"], None]


def test_pauses_do_not_get_shorter_so_words_make_up_for_them() -> None:
    speed = fitting_speed([spoken(10, 2), spoken(10, 2)], room_s=20)
    assert 20 / speed + 4 <= 20
    assert speed < FASTEST_SPEECH


@pytest.mark.parametrize(
    ("voice", "room_s", "speed"),
    [
        pytest.param(spoken(10, 0), 1.0, FASTEST_SPEECH, id="no room at all"),
        pytest.param(spoken(10, 5), 4.0, FASTEST_SPEECH, id="less room than pauses"),
        pytest.param(spoken(0, 11), 10.0, 1.111, id="an engine that tells no words"),
    ],
)
def test_the_pace_stays_within_what_is_pleasant(voice: SpeechResult, room_s: float, speed: float) -> None:
    assert fitting_speed([voice], room_s) == pytest.approx(speed)


def test_more_words_need_a_longer_film() -> None:
    assert shortest_s(parse_scenes("# A\n" + "word " * 100)) > shortest_s(parse_scenes("# A\nword")) > 1


@pytest.mark.parametrize("fps", [10, 24, 25, 30, 60])
def test_a_transition_is_a_whole_number_of_frames(fps: int) -> None:
    request = VideoRequest.model_validate({"title": "t", "script": "x", "duration_s": 9, "video": {"fps": fps}})
    frames = transition_s(request) * fps
    assert frames == pytest.approx(round(frames))
    assert frames >= 1
