"""The compositor: the film is what was asked for, looks alive, and dies at once when cancelled."""

import asyncio
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from serving.backends.call import Call
from serving.errors import BadInput, Cancelled
from serving.media.captions import build_cues, spoken_words
from serving.media.ffmpeg import decode_audio, run_ffmpeg
from serving.media.formats import to_ass, to_srt, to_vtt
from serving.media.layout import split_screen_layout
from serving.media.probe import probe_file
from serving.media.verify import verify_programme
from serving.protocol.tasks import (
    CompositionRequest,
    CompositionResult,
    Panel,
    Sequence,
    SourceVideo,
    Span,
    SplitScreen,
    Word,
)

SIZE = (640, 360)


def tone(seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * 22050)) / 22050
    return 0.2 * np.sin(2 * np.pi * 220 * at) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * at))


def moving(number: int) -> np.ndarray:
    frame = np.full((240, 320, 3), (90, 60, 120), np.uint8)
    cv2.circle(frame, (60 + number * 4 % 200, 120), 40, (220, 210, 200), -1)
    return frame


def cues() -> list[Any]:
    words = [
        Word(text=text, start_s=0.2 + at * 0.4, end_s=0.6 + at * 0.4) for at, text in enumerate(["Hello", "you", "two"])
    ]
    return build_cues(spoken_words(words, "Maya"))


async def compose(studio: Any, **fields: Any) -> tuple[CompositionResult, Path]:
    request = CompositionRequest.model_validate({"width": SIZE[0], "height": SIZE[1], "fps": 25, **fields})
    result = await studio.engine("compositor").run(request, Call())
    assert not list(studio.scratch.iterdir())
    return result, await studio.store.local_path(result.video)


async def split(studio: Any, **fields: Any) -> tuple[CompositionResult, Path]:
    left = [await studio.clip("l0", 30, moving), await studio.clip("l1", 20, moving)]
    right = [await studio.clip("r0", 50, lambda number: 60 + number % 7 * 9)]
    scene = SplitScreen(
        left=Panel(clips=left, name="Maya", title="Editor", speaking=[Span(start_s=0.0, end_s=1.0)]),
        right=Panel(clips=right, name="थियो", title="", speaking=[Span(start_s=1.2, end_s=2.0)]),
        heading="It's a test: 100 % [of] {it}, \\ really",
    )
    audio = await studio.sound(tone(2.0), "mix.wav")
    return await compose(studio, **{"scene": scene, "audio": audio, "duration_s": 2.0, **fields})


def frame_at(video: Path, number: int) -> np.ndarray:
    with av.open(str(video)) as medium:
        for index, frame in enumerate(medium.decode(video=0)):
            if index == number:
                return frame.to_ndarray(format="bgr24")
    raise AssertionError(f"no frame {number}")


async def test_a_split_screen_passes_the_checks_of_a_programme(studio: Any) -> None:
    texts = {"srt": to_srt(cues()), "vtt": to_vtt(cues()), "ass": to_ass(cues())}
    result, video = await split(
        studio,
        subtitles=await studio.text(texts["srt"], "c.srt"),
        burn_in=await studio.text(texts["ass"], "c.ass"),
        language="hi",
    )
    report = await verify_programme(video, audio_duration_s=2.0, captions=texts, loudness_lufs=None)
    assert not report.failed
    info = probe_file(video)
    picture, subtitle = info.first("video"), info.first("subtitle")
    assert picture is not None and (picture.width, picture.height, picture.frames) == (*SIZE, 50)
    assert subtitle is not None and subtitle.language == "hin"
    assert result.duration_s == pytest.approx(2.0, abs=0.05)
    thumbnail = cv2.imread(str(await studio.store.local_path(result.thumbnail)))
    assert thumbnail.shape == (*SIZE[::-1], 3)


async def test_the_panel_of_the_speaker_lights_up(studio: Any) -> None:
    _, video = await split(studio)
    layout = split_screen_layout(*SIZE, heading=True, captions=False)

    def edge(number: int, box: Any) -> np.ndarray:
        return frame_at(video, number)[box.y + box.height // 2, box.x].astype(int)

    early_left, late_left = edge(12, layout.left), edge(45, layout.left)
    early_right, late_right = edge(12, layout.right), edge(45, layout.right)
    assert early_left[2] > early_left[0] + 60
    assert abs(late_left - early_left).max() > 40
    assert late_right[1] > late_right[2] + 40
    assert abs(late_right - early_right).max() > 40


async def test_burnt_in_captions_change_the_picture_in_their_band(studio: Any) -> None:
    _, plain = await split(studio)
    _, burnt = await split(studio, burn_in=await studio.text(to_ass(cues()), "c.ass"))
    layout = split_screen_layout(*SIZE, heading=True, captions=True)
    band = frame_at(burnt, 20)[layout.captions.y :]
    assert band.max() > 230
    assert frame_at(plain, 20).shape == frame_at(burnt, 20).shape


async def test_equal_requests_give_equal_films(studio: Any) -> None:
    first, second = await split(studio), await split(studio)
    assert first[0] == second[0]


async def test_a_sequence_fades_from_clip_to_clip(studio: Any) -> None:
    clips = [await studio.clip(f"c{shade}", 25, lambda _, shade=shade: shade) for shade in (40, 200)]
    audio = await studio.sound(tone(1.6), "mix.wav")
    scene = Sequence(clips=clips, transition_s=0.4)
    _, video = await compose(studio, scene=scene, audio=audio, duration_s=1.6)
    shades = [frame_at(video, number)[180, 320].mean() for number in (5, 20, 38)]
    assert shades[0] == pytest.approx(40, abs=6)
    assert 60 < shades[1] < 180
    assert shades[2] == pytest.approx(200, abs=6)
    picture = probe_file(video).first("video")
    assert picture is not None and picture.frames == 40


async def test_a_long_sequence_is_faded_in_groups(studio: Any) -> None:
    clips = [await studio.clip(f"c{at}", 10, lambda _, at=at: 30 + 10 * at) for at in range(18)]
    audio = await studio.sound(tone(6.0), "mix.wav")
    scene = Sequence(clips=clips, transition_s=0.08)
    _, video = await compose(studio, scene=scene, audio=audio, duration_s=18 * 0.4 - 17 * 0.08, width=320, height=240)
    assert frame_at(video, 143)[120, 160].mean() == pytest.approx(200, abs=8)


async def test_captions_are_burnt_into_a_source_that_keeps_its_sound(studio: Any) -> None:
    _, film = await split(studio)
    source = await studio.store.put_file(film, media_type="video/mp4", name="source.mp4")
    burn_in = await studio.text(to_ass(cues()), "c.ass")
    _, video = await compose(
        studio, scene=SourceVideo(video=source), burn_in=burn_in, duration_s=2.0, width=360, height=640
    )
    info = probe_file(video)
    assert {stream.kind for stream in info.streams} == {"video", "audio"}
    assert abs(frame_at(video, 10)[5, 5].astype(int) - np.array([24, 14, 11])).max() < 6


async def test_a_source_whose_sound_starts_late_and_ends_early_stays_whole(studio: Any, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    await run_ffmpeg(
        ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=3", "-itsoffset", "1", "-f", "lavfi",
         "-i", "sine=duration=1", "-map", "0", "-map", "1", str(film)]
    )  # fmt: skip
    source = await studio.store.put_file(film, media_type="video/mp4", name="film.mp4")
    _, video = await compose(studio, scene=SourceVideo(video=source), duration_s=3.0)
    info = probe_file(video)
    assert [round(stream.duration_s, 1) for stream in info.streams] == [3.0, 3.0]
    samples = await decode_audio(video, 16000)
    loud = np.flatnonzero(np.abs(samples) > 0.05) / 16000
    assert (loud[0], loud[-1]) == pytest.approx((1.0, 2.0), abs=0.06)


async def test_a_recording_gets_a_picture_of_its_sound(studio: Any) -> None:
    source = await studio.sound(tone(2.0), "voice.wav")
    _, video = await compose(studio, scene=SourceVideo(video=source), duration_s=2.0)
    middle = frame_at(video, 25)[90:210]
    assert middle.max() > 120
    assert probe_file(video).first("audio") is not None


@pytest.mark.parametrize("content", ["", "hello"], ids=["empty", "text"])
async def test_clips_that_are_not_video_are_named(studio: Any, content: str) -> None:
    wrong = await studio.text(content, "clip.mp4")
    audio = await studio.sound(tone(1.0), "mix.wav")
    with pytest.raises(BadInput) as caught:
        await compose(studio, scene=Sequence(clips=[wrong]), audio=audio, duration_s=1.0)
    assert caught.value.field == "scene.clips[0]"


async def test_a_film_without_sound_is_refused(studio: Any) -> None:
    clip = await studio.clip("c", 10, lambda _: 100)
    with pytest.raises(BadInput, match="no sound"):
        await compose(studio, scene=Sequence(clips=[clip]), duration_s=1.0)


async def test_a_cancel_stops_ffmpeg_within_two_seconds(studio: Any) -> None:
    clip = await studio.clip("c", 25, moving)
    audio = await studio.sound(tone(1.0), "mix.wav")
    request = CompositionRequest(scene=Sequence(clips=[clip]), audio=audio, duration_s=600.0, width=1280, height=720)
    call = Call()
    task = asyncio.create_task(studio.engine("compositor").run(request, call))
    await asyncio.sleep(1.0)
    started = time.monotonic()
    call.cancel()
    with pytest.raises(Cancelled):
        await task
    assert time.monotonic() - started < 2
    assert not list(studio.scratch.iterdir())
