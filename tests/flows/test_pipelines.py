"""The pipelines through the public API, from files on a disk to files on a disk."""

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2
import pytest
import yaml

from serving.media.ffmpeg import decode_audio
from serving.media.loudness import measure_loudness
from serving.media.probe import probe
from serving.media.verify import verify_programme
from tests.flows.conftest import ROOT, Mesh

SHORT_SCRIPT = "Asha: Hello, Ravi! Are you ready?\nRavi: Always. Let us begin."


def reelmesh(mesh: Mesh, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.cli.main", *arguments, "--host", mesh.http]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def submitted(mesh: Mesh, job_type: str, spec: Path, out: Path) -> dict[str, Any]:
    done = reelmesh(mesh, "submit", job_type, str(spec), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    job: dict[str, Any] = json.loads(done.stdout)
    assert job["state"] == "completed"
    return job


def changed(example: str, folder: Path, **changes: Any) -> Path:
    """An example with other values, its files named absolutely."""
    source = ROOT / "examples" / example
    spec = yaml.safe_load(source.read_text())
    for speaker in spec.get("speakers", []):
        speaker["portrait"] = str((source.parent / speaker["portrait"]).resolve())
    spec["images"] = {name: str((source.parent / path).resolve()) for name, path in spec.get("images", {}).items()}
    if "media" in spec:
        spec["media"] = str((source.parent / spec["media"]).resolve())
    spec = {name: value for name, value in {**spec, **changes}.items() if value not in ({}, None)}
    target = folder / "spec.yaml"
    target.write_text(yaml.safe_dump(spec, sort_keys=False))
    return target


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def cues(path: Path) -> list[pysubs2.SSAEvent]:
    return list(pysubs2.load(str(path)).events)


@pytest.fixture(scope="session")
def podcast(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Path]]:
    folder = tmp_path_factory.mktemp("podcast")
    spec = changed("podcast/podcast.yaml", folder, script=SHORT_SCRIPT)
    job = submitted(mesh, "podcast_video", spec, folder / "out")
    return job, {name: Path(path) for name, path in job["paths"].items()}


def test_a_podcast_passes_its_own_checks_after_the_download(podcast: tuple[dict[str, Any], dict[str, Path]]) -> None:
    _, paths = podcast
    texts = {kind: paths[f"podcast.{kind}"].read_text() for kind in ("srt", "vtt", "ass")}
    report = asyncio.run(verify_programme(paths["podcast.mp4"], captions=texts))
    assert report.ok, report.failed


def test_a_podcast_is_what_the_player_expects(podcast: tuple[dict[str, Any], dict[str, Path]]) -> None:
    _, paths = podcast
    info = asyncio.run(probe(paths["podcast.mp4"]))
    video, audio, captions = (info.first(kind) for kind in ("video", "audio", "subtitle"))
    assert video is not None
    assert (video.codec, video.width, video.height, video.fps) == ("h264", 1280, 720, 25.0)
    assert audio is not None
    assert (audio.codec, audio.sample_rate_hz, audio.channels) == ("aac", 48000, 2)
    assert captions is not None
    assert info.faststart
    loudness = asyncio.run(measure_loudness(paths["podcast.mp4"]))
    assert loudness.integrated_lufs == pytest.approx(-16, abs=1)
    assert loudness.true_peak_dbtp < -1


def test_captions_hold_every_word_of_the_script_in_order(podcast: tuple[dict[str, Any], dict[str, Path]]) -> None:
    _, paths = podcast
    said = " ".join(line.partition(": ")[2] for line in SHORT_SCRIPT.splitlines()).split()
    for kind in ("srt", "vtt", "ass"):
        shown = " ".join(cue.plaintext.replace("\n", " ") for cue in cues(paths[f"podcast.{kind}"])).split()
        assert shown == said


def test_every_stage_ran_once_and_says_who_served_it(podcast: tuple[dict[str, Any], dict[str, Path]]) -> None:
    job, _ = podcast
    stages = {stage["name"]: stage for stage in job["stages"]}
    assert stages["faces"]["models"] == ["triton/face_landmarks"]
    assert stages["features"]["models"] == ["triton/log_mel"]
    assert stages["lip_sync"]["parts_done"] == 4
    assert stages["words"]["state"] == "skipped"
    assert all(stage["tries"] <= 1 for stage in job["stages"])


def test_provenance_names_inputs_models_and_licences(podcast: tuple[dict[str, Any], dict[str, Path]]) -> None:
    _, paths = podcast
    record = json.loads(paths["provenance.json"].read_text())
    assert record["ai_generated"] is True
    assert {entry["role"] for entry in record["inputs"]} == {"speakers.0.portrait", "speakers.1.portrait"}
    models = {entry["model"]: entry for entry in record["models"]}
    assert {"speech", "lip_sync", "face_landmarks", "log_mel", "music", "compositor"} <= set(models)
    assert all(entry["license"] for entry in models.values())
    assert all(check["ok"] for check in record["checks"])


def test_a_film_of_scenes_gets_pictures_narration_and_its_duration(mesh: Mesh, tmp_path: Path) -> None:
    script = "# One\n[image: asha]\nThe first scene.\n# Two\nNobody gave this scene a picture."
    portrait = str(ROOT / "examples/podcast/portraits/asha.png")
    spec = changed("video/video.yaml", tmp_path, script=script, duration_s=9, images={"asha": portrait})
    job = submitted(mesh, "video_generation", spec, tmp_path / "out")
    info = asyncio.run(probe(Path(job["paths"]["video.mp4"])))
    assert info.duration_s == pytest.approx(9, abs=0.2)
    assert [stage["parts"] for stage in job["stages"] if stage["name"] == "images"] == [1]


def test_subtitles_time_a_known_text_word_by_word(mesh: Mesh, tmp_path: Path) -> None:
    job = submitted(mesh, "subtitle_generation", changed("subtitles/subtitles.yaml", tmp_path), tmp_path / "out")
    paths = {name: Path(path) for name, path in job["paths"].items()}
    shown = " ".join(cue.plaintext.replace("\n", " ") for cue in cues(paths["captions.srt"]))
    spec = yaml.safe_load((ROOT / "examples/subtitles/subtitles.yaml").read_text())
    assert shown == spec["transcript"]
    info = asyncio.run(probe(paths["captions.mp4"]))
    assert info.first("video") is not None
    assert info.first("subtitle") is not None


def test_subtitles_without_a_text_are_recognised(mesh: Mesh, tmp_path: Path) -> None:
    spec = changed("subtitles/subtitles.yaml", tmp_path, transcript=None, burn_in=False)
    job = submitted(mesh, "subtitle_generation", spec, tmp_path / "out")
    found = cues(Path(job["paths"]["captions.srt"]))
    assert found
    assert all(len(line) <= 42 for cue in found for line in cue.plaintext.splitlines())
    said = words_of(yaml.safe_load((ROOT / "examples/subtitles/subtitles.yaml").read_text())["transcript"])
    heard = words_of(" ".join(cue.plaintext for cue in found))
    assert len(said & heard) >= 0.3 * len(said), "the builtin recogniser gets about half of the words"


def made(mesh: Mesh, job_type: str, spec: Path, out: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """A job's facts and its files."""
    job = submitted(mesh, job_type, spec, out)
    return job["output"]["facts"], {name: Path(path) for name, path in job["paths"].items()}


def example(name: str) -> Path:
    return ROOT / "examples" / name / f"{name}.yaml"


def assert_mastered(path: Path, codec: str, duration_s: float, lufs: float) -> None:
    """Codec, rate, length, loudness and peak of a sound; and that it can be heard from beginning to end."""
    info = asyncio.run(probe(path))
    audio = info.first("audio")
    assert audio is not None
    assert (audio.codec, audio.sample_rate_hz, audio.channels) == (codec, 48_000, 2)
    assert info.duration_s == pytest.approx(duration_s, abs=0.05)
    loudness = asyncio.run(measure_loudness(path))
    assert loudness.integrated_lufs == pytest.approx(lufs, abs=1)
    assert loudness.true_peak_dbtp < -1
    samples = asyncio.run(decode_audio(path, 8000))
    quarters = [abs(part).max() for part in np.array_split(samples, 4)]
    assert min(quarters) > 0.02


def test_lines_of_three_voices_become_one_master_and_a_clip_of_each(mesh: Mesh, tmp_path: Path) -> None:
    facts, paths = made(mesh, "voice_synthesis", example("voice"), tmp_path / "out")
    lines = yaml.safe_load(example("voice").read_text())["lines"]
    assert [line["voice"] for line in facts["lines"]] == ["narrator", "asha", "elder", "ananya"]
    for name, codec in (("speech.wav", "pcm_s16le"), ("speech.m4a", "aac")):
        assert_mastered(paths[name], codec, facts["duration_s"], -16)
    clips = sorted(name for name in paths if name.startswith("line-"))
    for name, told in zip(clips, facts["lines"], strict=True):
        assert asyncio.run(probe(paths[name])).duration_s == pytest.approx(told["end_s"] - told["start_s"], abs=0.01)
    shown = " ".join(cue.plaintext.replace("\n", " ") for cue in cues(paths["speech.srt"]))
    assert shown == " ".join(line["text"] for line in lines)


def test_a_portrait_says_a_text(mesh: Mesh, tmp_path: Path) -> None:
    facts, paths = made(mesh, "lipsync_animation", example("lipsync"), tmp_path / "out")
    texts = {kind: paths[f"animation.{kind}"].read_text() for kind in ("srt", "vtt", "ass")}
    report = asyncio.run(verify_programme(paths["animation.mp4"], captions=texts))
    assert report.ok, report.failed
    info = asyncio.run(probe(paths["animation.mp4"]))
    picture = info.first("video")
    assert picture is not None
    assert (picture.width, picture.height, picture.fps) == (720, 810, 25.0)
    assert info.duration_s == pytest.approx(facts["duration_s"], abs=0.1)
    said = " ".join(yaml.safe_load(example("lipsync").read_text())["text"].split())
    assert " ".join(cue.plaintext.replace("\n", " ") for cue in cues(paths["animation.srt"])) == said


def test_a_portrait_speaks_a_recording_in_its_own_time_and_shape(mesh: Mesh, tmp_path: Path) -> None:
    recording = ROOT / "examples/subtitles/recording.flac"
    spec = tmp_path / "spec.yaml"
    portrait = str(ROOT / "examples/podcast/portraits/ravi.png")
    spec.write_text(yaml.safe_dump({"portrait": portrait, "audio": str(recording)}))
    _, paths = made(mesh, "lipsync_animation", spec, tmp_path / "out")
    report = asyncio.run(verify_programme(paths["animation.mp4"], soft_subtitles=False))
    assert report.ok, report.failed
    picture = asyncio.run(probe(paths["animation.mp4"])).first("video")
    assert picture is not None
    assert (picture.width, picture.height) == (960, 1080)
    heard, spoken = (np.abs(asyncio.run(decode_audio(path, 8000))) for path in (paths["animation.mp4"], recording))
    envelopes = [np.convolve(sound[:80_000], np.ones(400) / 400, "same") for sound in (heard, spoken)]
    assert np.corrcoef(*envelopes)[0, 1] > 0.9, "what is heard at a second of the recording is heard there in the film"
    assert not [name for name in paths if name.endswith(".srt")]


def test_a_prompt_becomes_mastered_music_and_the_same_one_again(mesh: Mesh, tmp_path: Path) -> None:
    facts, paths = made(mesh, "music_generation", example("music"), tmp_path / "out")
    assert (facts["mood"], facts["seed"], facts["duration_s"]) == ("bright", 21, 20.0)
    for name, codec in (("music.wav", "pcm_s16le"), ("music.m4a", "aac")):
        assert_mastered(paths[name], codec, 20, -16)
    record = json.loads(paths["provenance.json"].read_text())
    assert record["seeds"] == {"programme": 21}
    assert {entry["model"] for entry in record["models"]} == {"music", "audio_mix"}
    again = submitted(mesh, "music_generation", example("music"), tmp_path / "again")
    assert Path(again["paths"]["music.wav"]).read_bytes() == paths["music.wav"].read_bytes()


def test_a_job_can_be_cancelled_while_it_renders(mesh: Mesh, tmp_path: Path) -> None:
    spec = changed("podcast/podcast.yaml", tmp_path, script=SHORT_SCRIPT + "\nAsha: " + "And on we go. " * 60)
    started = reelmesh(mesh, "submit", "podcast_video", str(spec), "--no-wait", "--json")
    job_id = json.loads(started.stdout)["id"]

    def shown() -> dict[str, Any]:
        job: dict[str, Any] = json.loads(reelmesh(mesh, "jobs", "show", job_id, "--json").stdout)
        return job

    deadline = time.monotonic() + 100
    while shown()["state"] in ("submitted", "queued", "processing") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shown()["state"] == "rendering"
    assert reelmesh(mesh, "jobs", "cancel", job_id).returncode == 0
    ended = shown()
    assert ended["state"] == "cancelled"
    assert {stage["name"]: stage["state"] for stage in ended["stages"]}["compose"] != "done"
    assert ended["artifacts"] == {}


BAD = [
    pytest.param({"script": "Bob: Hello."}, "'Bob' is not a speaker", id="unknown speaker"),
    pytest.param({"script": ""}, "script", id="empty script"),
    pytest.param({"script": "Asha: " + "x" * (1 << 20)}, "more than 1,048,576 bytes", id="script of 1 MiB"),
    pytest.param({"speakers": []}, "speakers", id="no speakers"),
    pytest.param({"video": {"width": 1281}}, "width", id="odd width"),
    pytest.param({"colour": "red"}, "colour", id="unknown field"),
]


@pytest.mark.parametrize(("changes", "part"), BAD)
def test_a_bad_podcast_is_refused_before_any_work(
    mesh: Mesh, tmp_path: Path, changes: dict[str, Any], part: str
) -> None:
    refused = reelmesh(mesh, "submit", "podcast_video", str(changed("podcast/podcast.yaml", tmp_path, **changes)))
    assert refused.returncode == 2, refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 3
    assert any(piece in refused.stderr for piece in part.split("|")), refused.stderr


def bad_speaker(tmp_path: Path, **changes: Any) -> Path:
    spec = yaml.safe_load(changed("podcast/podcast.yaml", tmp_path).read_text())
    spec["speakers"][0].update(changes)
    target = tmp_path / "bad.yaml"
    target.write_text(yaml.safe_dump(spec))
    return target


def test_an_unknown_voice_is_refused_with_the_nearest_one(mesh: Mesh, tmp_path: Path) -> None:
    refused = reelmesh(mesh, "submit", "podcast_video", str(bad_speaker(tmp_path, voice="ashaa")))
    assert refused.returncode == 2
    assert "did you mean 'asha'" in refused.stderr


@pytest.mark.parametrize("content", [None, b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 64])
def test_a_portrait_that_is_no_picture_is_refused(mesh: Mesh, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "face.png").write_bytes(content)
    refused = reelmesh(mesh, "submit", "podcast_video", str(bad_speaker(tmp_path, portrait="face.png")))
    assert refused.returncode == 2, refused.stderr
    assert "face.png" in refused.stderr


@pytest.mark.parametrize("duration", [0, -5, 2])
def test_a_film_without_room_for_its_words_is_refused(mesh: Mesh, tmp_path: Path, duration: float) -> None:
    spec = changed("video/video.yaml", tmp_path, duration_s=duration)
    refused = reelmesh(mesh, "submit", "video_generation", str(spec))
    assert refused.returncode == 2
    assert "duration_s" in refused.stderr


def test_nothing_that_was_refused_is_listed(mesh: Mesh) -> None:
    listed = json.loads(reelmesh(mesh, "jobs", "list", "--json").stdout)
    assert all(job["state"] in ("completed", "cancelled") for job in listed["data"])
