"""The checks a finished programme must pass before anybody sees it; used by the graphs and by `make demo`.

The one invariant: every check says what it measured and what was wanted, whether it passed or not.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.errors import EngineFailed
from serving.media.loudness import Loudness, measure_loudness
from serving.media.probe import MediaInfo, probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DURATION_TOLERANCE: Final = 0.02
LOUDNESS_TOLERANCE_LU: Final = 1.0
HIGHEST_PEAK_DBTP: Final = -1.0
SOUND_STREAMS: Final = {"wav": "pcm_s16le 48000 Hz", "m4a": "aac 48000 Hz"}
"""Codec and rate of a sound file by format; films carry the second."""
PICTURES_LOOKED_AT: Final = 12
BLACK_LUMA: Final = 20.0
"""Mean luma (0 to 255) at or under which a frame counts as black; limited-range black is 16."""
FROZEN_DIFFERENCE: Final = 0.05
"""Mean luma difference of two sampled frames under which the picture did not move; still encodes differ by less."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was measured and what was wanted, in words with units."""

    name: str
    ok: bool
    measured: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one file."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.ok)

    def as_facts(self) -> list[dict[str, Any]]:
        """For a job's facts and the provenance, as JSON values."""
        return [asdict(check) for check in self.checks]

    def raise_if_failed(self) -> None:
        """Raise :class:`EngineFailed` that names every failed check."""
        if self.failed:
            problems = "; ".join(f"{check.name} is {check.measured}, wanted {check.wanted}" for check in self.failed)
            raise EngineFailed(f"the finished file failed its checks: {problems}")


async def verify_programme(
    video: Path,
    *,
    audio_duration_s: float | None = None,
    captions: Mapping[str, str] | None = None,
    soft_subtitles: bool = True,
    loudness_lufs: float | None = -16.0,
    moves: bool = True,
) -> Report:
    """Check a finished MP4 and its caption files.

    Args:
        video: the MP4.
        audio_duration_s: length of the mix it was made from; None checks the tracks against each other.
        captions: caption files' texts by format: ``srt``, ``vtt``, ``ass``.
        soft_subtitles: whether the file must carry a mov_text track.
        loudness_lufs: wanted loudness; None where a source keeps its own sound.
        moves: whether the picture must move; False for a recording over a still.

    Raises:
        BadInput: the file is not media, or has no sound although loudness is asked for.
    """
    info = await probe(video)
    checks = stream_checks(info, soft_subtitles=soft_subtitles)
    checks.append(duration_check(info, audio_duration_s))
    if loudness_lufs is not None:
        checks += loudness_checks(await measure_loudness(video), loudness_lufs)
    checks += caption_checks(captions or {}, info.duration_s)
    lumas = await asyncio.to_thread(sample_lumas, video, info.duration_s)
    checks += picture_checks(lumas, moves=moves)
    return Report(tuple(checks))


async def verify_sound(
    files: Mapping[str, Path], *, duration_s: float, loudness_lufs: float, captions: Mapping[str, str]
) -> Report:
    """Check a mastered sound in its formats, and its caption files if it has any.

    Args:
        files: by format: ``wav``, ``m4a``.
        duration_s: length of the mix they were made from.
        loudness_lufs: wanted loudness.
        captions: caption files' texts by format.

    Raises:
        BadInput: a file is not media.
    """
    checks: list[Check] = []
    for kind, path in files.items():
        info = await probe(path)
        own = [sound_check(info, SOUND_STREAMS[kind]), duration_check(info, duration_s)]
        own += loudness_checks(await measure_loudness(path), loudness_lufs)
        checks += [replace(check, name=f"{kind} {check.name}") for check in own]
    return Report((*checks, *caption_checks(captions, duration_s)))


def sound_check(info: MediaInfo, wanted: str) -> Check:
    """Codec and rate of the first audio stream."""
    audio = info.first("audio")
    sound = f"{audio.codec} {audio.sample_rate_hz} Hz" if audio else "none"
    return Check("audio stream", sound == wanted, sound, wanted)


def stream_checks(info: MediaInfo, *, soft_subtitles: bool) -> list[Check]:
    """H.264 yuv420p, AAC 48 kHz, mov_text where wanted, index in front."""
    video, text = info.first("video"), info.first("subtitle")
    picture = f"{video.codec} {video.pixel_format} {video.width}x{video.height}" if video else "none"
    checks = [
        Check("video stream", picture.startswith("h264 yuv420p "), picture, "h264 yuv420p"),
        sound_check(info, SOUND_STREAMS["m4a"]),
        Check("faststart", info.faststart, "index first" if info.faststart else "index last", "index first"),
    ]
    if soft_subtitles:
        codec = text.codec if text else "none"
        checks.append(Check("subtitle stream", codec == "mov_text", codec, "mov_text"))
    return checks


def duration_check(info: MediaInfo, audio_duration_s: float | None) -> Check:
    """Picture and sound within 2 % of the mix."""
    audio, video = info.first("audio"), info.first("video")
    wanted = audio_duration_s or (audio.duration_s if audio else info.duration_s)
    seen = [stream.duration_s for stream in (audio, video) if stream is not None] or [0.0]
    worst = max(seen, key=lambda duration: abs(duration - wanted))
    ok = abs(worst - wanted) <= DURATION_TOLERANCE * wanted
    return Check("duration", ok, f"{worst:.2f} s", f"{wanted:.2f} s within 2 %")


def loudness_checks(measured: Loudness, wanted_lufs: float) -> list[Check]:
    """Integrated loudness within 1 LU, true peak under -1 dBTP."""
    off = abs(measured.integrated_lufs - wanted_lufs)
    return [
        Check(
            "loudness",
            off <= LOUDNESS_TOLERANCE_LU,
            f"{measured.integrated_lufs:.1f} LUFS",
            f"{wanted_lufs:g} LUFS within {LOUDNESS_TOLERANCE_LU:g} LU",
        ),
        Check(
            "true peak",
            measured.true_peak_dbtp < HIGHEST_PEAK_DBTP,
            f"{measured.true_peak_dbtp:.1f} dBTP",
            f"under {HIGHEST_PEAK_DBTP:g} dBTP",
        ),
    ]


def caption_checks(captions: Mapping[str, str], duration_s: float) -> list[Check]:
    """Each file parses, holds cues, in order, without overlap, inside the programme; all files hold as many."""
    checks = [_caption_check(name, text, duration_s) for name, text in captions.items()]
    counts = {name: len(_spans(name, text)) for name, text in captions.items()}
    if len(counts) > 1:
        measured = ", ".join(f"{name} {count}" for name, count in counts.items())
        checks.append(Check("caption files agree", len(set(counts.values())) == 1, measured, "as many cues in each"))
    return checks


def _caption_check(name: str, text: str, duration_s: float) -> Check:
    spans = _spans(name, text)
    problem = _span_problem(spans, duration_s)
    return Check(
        f"{name} captions",
        problem is None,
        problem or f"{len(spans)} cues in order",
        "cues, in order, inside the programme",
    )


def _spans(name: str, text: str) -> list[tuple[float, float, str]]:
    """Start, end and text of every cue; empty when the file does not parse."""
    import pysubs2

    if not text.strip():
        return []
    try:
        events = pysubs2.SSAFile.from_string(text, format_=name).events
    except (pysubs2.Pysubs2Error, ValueError):
        return []
    return [(event.start / 1000, event.end / 1000, event.plaintext) for event in events]


def _span_problem(spans: Sequence[tuple[float, float, str]], duration_s: float) -> str | None:
    if not spans:
        return "no cues"
    last_end = 0.0
    for number, (start_s, end_s, text) in enumerate(spans, 1):
        if not text.strip():
            return f"cue {number} is empty"
        if end_s <= start_s or start_s < last_end - 1e-3:
            return f"cue {number} is out of order"
        last_end = end_s
    return f"the last cue starts after {duration_s:.2f} s" if spans[-1][0] > duration_s else None


def picture_checks(lumas: Sequence["NDArray[np.uint8]"], *, moves: bool) -> list[Check]:
    """No sampled frame is black; where it must move, most neighbours differ."""
    import numpy as np

    dark = sum(float(luma.mean()) <= BLACK_LUMA for luma in lumas)
    checks = [
        Check("picture is visible", bool(lumas) and not dark, f"{dark} of {len(lumas)} frames black", "none black")
    ]
    if moves and len(lumas) > 1:
        differences = [float(np.abs(after.astype(np.int16) - before).mean()) for before, after in pairwise(lumas)]
        still = sum(difference < FROZEN_DIFFERENCE for difference in differences)
        checks.append(
            Check(
                "picture moves",
                still * 2 < len(differences),
                f"{still} of {len(differences)} steps frozen",
                "fewer than half frozen",
            )
        )
    return checks


def sample_lumas(video: Path, duration_s: float) -> list["NDArray[np.uint8]"]:
    """Luma planes (height, width) of key frames spread evenly over the file; blocks."""
    import av

    planes: list[NDArray[np.uint8]] = []
    seen: set[int] = set()
    with av.open(str(video)) as medium:
        if not medium.streams.video:
            return planes
        stream: Any = medium.streams.video[0]
        stream.codec_context.skip_frame = "NONKEY"
        for index in range(PICTURES_LOOKED_AT):
            medium.seek(int(duration_s * (index + 0.5) / PICTURES_LOOKED_AT * 1_000_000), backward=True)
            frame = next(medium.decode(stream), None)
            if frame is not None and frame.pts not in seen:
                seen.add(frame.pts)
                planes.append(frame.to_ndarray(format="gray"))
    return planes
