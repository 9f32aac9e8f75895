"""Cues as SubRip, WebVTT and Advanced SubStation Alpha files; used by the graphs.

The one invariant: whatever a word holds, the file parses back to the same cues. What a format would take for
markup is escaped, in SRT and ASS with U+2060 (word joiner), invisible to readers, as ffmpeg's writer does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving.media.caption_types import Cue, SpokenWord
from serving.media.typefaces import LATIN_FAMILY, family_of

WORD_JOINER: Final = "\u2060"

_SRT_MARKUP: Final = re.compile(r"<(?=[A-Za-z/!])|\{(?=\\)|--(?=>)|\d:(?=\d{1,2}:\d)")
"""Starts of a tag, an override, an arrow, a time."""


@dataclass(frozen=True, slots=True)
class AssStyle:
    """How burnt-in captions look.

    Attributes:
        width: pixels of the picture the sizes are meant for.
        height: pixels of that picture.
        font_px: height of the letters' em.
        baseline_px: empty pixels under the lower line.
        boxed: a dark translucent box behind the lines instead of a shadow; safe over any picture.
        highlight: ``#rrggbb`` of the word being said; None keeps all words alike.
    """

    width: int = 1280
    height: int = 720
    font_px: int = 38
    baseline_px: int = 34
    boxed: bool = False
    highlight: str | None = "#ffc857"


def srt_time(seconds: float) -> str:
    """``HH:MM:SS,mmm``."""
    return _clock(seconds, ",")


def vtt_time(seconds: float) -> str:
    """``HH:MM:SS.mmm``."""
    return _clock(seconds, ".")


def ass_time(seconds: float) -> str:
    """``H:MM:SS.cc``: ASS counts hundredths."""
    hundredths = max(0, round(seconds * 100))
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}.{rest % 100:02d}"


def _clock(seconds: float, point: str) -> str:
    millis = max(0, round(seconds * 1000))
    minutes, rest = divmod(millis, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def to_srt(cues: Sequence[Cue]) -> str:
    """SubRip, numbered from 1; lines end with a line feed."""
    blocks = (
        f"{number}\n{srt_time(cue.start_s)} --> {srt_time(cue.end_s)}\n"
        + "\n".join(_srt_text(text) for text in cue.line_texts)
        for number, cue in enumerate(cues, 1)
    )
    return "\n\n".join(blocks) + "\n" if cues else ""


def _srt_text(text: str) -> str:
    """A line that no player takes for a tag, a time or a cue number."""
    text = _SRT_MARKUP.sub(lambda match: match.group() + WORD_JOINER, text)
    return WORD_JOINER + text if text.isdecimal() else text


def to_vtt(cues: Sequence[Cue], *, word_times: bool = False) -> str:
    """WebVTT with ``<v Speaker>`` spans.

    Args:
        cues: in order.
        word_times: put ``<HH:MM:SS.mmm>`` before every word but the first, for karaoke in browsers.
    """
    blocks = ["WEBVTT"]
    for cue in cues:
        lines = "\n".join(_vtt_line(cue, line, word_times) for line in cue.lines)
        voice = f"<v {_vtt_text(cue.speaker)}>" if cue.speaker else ""
        blocks.append(f"{vtt_time(cue.start_s)} --> {vtt_time(cue.end_s)}\n{voice}{lines}")
    return "\n\n".join(blocks) + "\n"


def _vtt_line(cue: Cue, line: Sequence[SpokenWord], word_times: bool) -> str:
    parts = []
    last_ms = round(cue.start_s * 1000)
    for index, word in enumerate(line):
        stamp, at_ms = "", round(word.start_s * 1000)
        if word_times and last_ms < at_ms < round(cue.end_s * 1000):
            stamp, last_ms = f"<{vtt_time(word.start_s)}>", at_ms
        space = "" if index == 0 or word.glued else " "
        parts.append(f"{space}{stamp}{_vtt_text(word.text)}")
    return "".join(parts)


def _vtt_text(text: str) -> str:
    """Text, or a name inside ``<v ...>``: there too ``&`` starts a reference and ``>`` ends the tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_ass(cues: Sequence[Cue], style: AssStyle | None = None) -> str:
    """ASS with one style, a font per script, and the word being said lit up.

    The file names fonts by family; render it with ``fontsdir`` set to
    :data:`serving.media.typefaces.FONTS_FOLDER`.
    """
    style = style or AssStyle()
    events = "".join(
        f"Dialogue: 0,{ass_time(cue.start_s)},{ass_time(cue.end_s)},Caption,{_ass_name(cue.speaker)},"
        f"0,0,0,,{_ass_cue(cue, style)}\n"
        for cue in cues
    )
    return _ass_head(style) + events


_ASS_STYLE_FORMAT: Final = (
    "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
    "Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
    "MarginR, MarginV, Encoding\n"
)
_ASS_EVENT_FORMAT: Final = "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"


def _ass_head(style: AssStyle) -> str:
    edge, shade = ("&H60140F0C", "&H60140F0C") if style.boxed else ("&H00140F0C", "&H96000000")
    border, outline = (3, style.font_px / 4.5) if style.boxed else (1, style.font_px / 13)
    shadow = 0 if style.boxed else 1
    return (
        "[Script Info]\nScriptType: v4.00+\nWrapStyle: 2\n"
        "ScaledBorderAndShadow: yes\nYCbCr Matrix: TV.709\n"
        f"PlayResX: {style.width}\nPlayResY: {style.height}\n\n[V4+ Styles]\n{_ASS_STYLE_FORMAT}"
        f"Style: Caption,{LATIN_FAMILY},{style.font_px},&H00FFFFFF,&H00FFFFFF,{edge},{shade},-1,"
        f"0,0,0,100,100,0,0,{border},{outline:.1f},{shadow},"
        f"2,40,40,{style.baseline_px},1\n\n"
        f"[Events]\n{_ASS_EVENT_FORMAT}"
    )


def _ass_cue(cue: Cue, style: AssStyle) -> str:
    return "\\N".join(_ass_line(cue, line, style) for line in cue.lines)


def _ass_line(cue: Cue, line: Sequence[SpokenWord], style: AssStyle) -> str:
    parts = []
    for index, word in enumerate(line):
        family = family_of(word.text)
        font = f"\\fn{family}" if family != LATIN_FAMILY else ""
        light = _ass_highlight(cue, word, style.highlight) if style.highlight else ""
        space = "" if index == 0 or word.glued else " "
        tags = f"{{{font}{light}}}" if font or light else ""
        reset = "{\\r}" if tags else ""
        parts.append(f"{space}{tags}{ass_text(word.text)}{reset}")
    return "".join(parts)


def _ass_highlight(cue: Cue, word: SpokenWord, colour: str) -> str:
    """Tags that give a word another colour from its start to its end, in milliseconds of its cue."""
    start = min(max(0, round((word.start_s - cue.start_s) * 1000)), 60_000)
    end = min(max(start + 1, round((word.end_s - cue.start_s) * 1000)), 60_000)
    lit = f"\\t({max(0, start - 40)},{max(start, 1)},\\1c{ass_colour(colour)})"
    return f"{lit}\\t({end},{end + 120},\\1c&HFFFFFF&)"


def ass_colour(colour: str) -> str:
    """``#rrggbb`` as ASS writes it: ``&Hbbggrr&``."""
    return f"&H{colour[5:7]}{colour[3:5]}{colour[1:3]}&".upper()


def ass_text(text: str) -> str:
    """Text that holds no override block, escape or line break for an ASS renderer."""
    return text.replace("\\", f"\\{WORD_JOINER}").replace("{", "\\{").replace("}", "\\}")


def _ass_name(name: str) -> str:
    """The Name field ends at a comma."""
    return name.replace(",", " ")
