"""Plan: the inputs and filters of one composition, and the ffmpeg command they become; pure builders.

The one invariant: the picture chain stays in yuv420p (BT.709, limited range) from decoder to encoder; stills are
converted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.media.ffmpeg import COLOUR, REPEATABLE, SAFE_INPUT
from serving.media.sound import AAC
from serving.media.typefaces import FONTS_FOLDER

TO_YUV: Final = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic"
"""Filter that turns a still's RGB into the picture chain's colours."""

_LANGUAGES: Final = {
    "ar": "ara", "bn": "ben", "de": "deu", "en": "eng", "es": "spa", "fr": "fra", "gu": "guj", "he": "heb",
    "hi": "hin", "it": "ita", "ja": "jpn", "kn": "kan", "ko": "kor", "ml": "mal", "mr": "mar", "pa": "pan",
    "pt": "por", "ru": "rus", "sa": "san", "ta": "tam", "te": "tel", "th": "tha", "ur": "urd", "zh": "zho",
}  # fmt: skip


def language_code(language: str) -> str:
    """ISO 639-2 code, which MP4 wants; ``und`` where it is not known."""
    base = language.split("-", maxsplit=1)[0]
    return _LANGUAGES.get(base, base if len(base) == len("und") else "und")


def escape_option(value: str) -> str:
    """A filter option's value, escaped for the option list and then for the graph, as ffmpeg's manual asks."""
    once = "".join(f"\\{character}" if character in "\\':" else character for character in value)
    return "".join(f"\\{character}" if character in "\\'[],;" else character for character in once)


@dataclass(slots=True)
class Plan:
    """Inputs and filters, in the order ffmpeg numbers them.

    Attributes:
        inputs: one argument list per input.
        filters: chains of the filter graph.
        video: label of the finished picture.
        audio: map specifier of the sound (an input's stream, or a label in brackets), None for a silent film.
    """

    inputs: list[list[str]] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    video: str = ""
    audio: str | None = None

    def add_input(self, arguments: Sequence[str]) -> int:
        """Append an input; returns its number."""
        self.inputs.append(list(arguments))
        return len(self.inputs) - 1

    def chain(self, source: str, filters: str, target: str) -> str:
        """Append ``[source]filters[target]``; returns ``target``."""
        self.filters.append(f"{source}{filters}[{target}]")
        return target

    def add_still(self, path: Path, fps: int, label: str) -> str:
        """A still as an endless picture: decoded and converted once, then repeated by reference."""
        number = self.add_input(["-i", str(path)])
        repeat = f"{TO_YUV},format=yuv420p,loop=loop=-1:size=1,setpts=N/({fps}*TB),fps={fps},setsar=1"
        return self.chain(f"[{number}:v]", repeat, label)

    def burn_in(self, captions: Path) -> None:
        """Draw ASS captions over the finished picture."""
        fonts = escape_option(str(FONTS_FOLDER))
        self.video = self.chain(
            f"[{self.video}]", f"ass=filename={escape_option(str(captions))}:fontsdir={fonts}", "captioned"
        )


@dataclass(frozen=True, slots=True)
class Output:
    """The file to write.

    Attributes:
        path: MP4.
        duration_s: exact length; also what ends the endless stills and keeps a sparse subtitle stream from
            holding ffmpeg up, as ``-shortest`` would.
        fps: frames a second.
        subtitles: SRT for the soft track.
        language: of sound and subtitles.
        subtitles_shown: whether players show the soft track by themselves; not when captions are burnt in.
        title: metadata.
        threads: of the encoder.
    """

    path: Path
    duration_s: float
    fps: int
    subtitles: Path | None = None
    language: str = "en"
    subtitles_shown: bool = True
    title: str = ""
    threads: int = 2


def command(plan: Plan, output: Output) -> list[str]:
    """The arguments for a plan: H.264 High yuv420p, AAC 48 kHz stereo 192 kb/s, mov_text, faststart."""
    inputs = [argument for arguments in plan.inputs for argument in arguments]
    language = language_code(output.language)
    maps, codecs = ["-map", f"[{plan.video}]"], _video_codec(output)
    if plan.audio is not None:
        maps += ["-map", plan.audio]
        codecs += [*AAC, "-metadata:s:a:0", f"language={language}"]
    if output.subtitles is not None:
        inputs += ["-f", "srt", "-i", f"file:{output.subtitles}"]
        maps += ["-map", f"{len(plan.inputs)}:s:0"]
        codecs += ["-c:s", "mov_text", "-metadata:s:s:0", f"language={language}"]
        codecs += ["-disposition:s:0", "default" if output.subtitles_shown else "0"]
    title = ["-metadata", f"title={output.title}"] if output.title else []
    return [
        *inputs, "-filter_complex", ";".join(plan.filters), *maps, *codecs, *REPEATABLE, *title,
        "-t", f"{output.duration_s:.6f}", "-movflags", "+faststart", "-f", "mp4", str(output.path),
    ]  # fmt: skip


def _video_codec(output: Output) -> list[str]:
    return [
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-profile:v", "high", "-pix_fmt", "yuv420p",
        "-r", str(output.fps), "-g", str(output.fps * 2), "-threads", str(output.threads), *COLOUR,
    ]  # fmt: skip


def media_input(path: Path) -> list[str]:
    """An input that came from a client or an engine, read as plain media only."""
    return [*SAFE_INPUT, "-i", f"file:{path}"]
