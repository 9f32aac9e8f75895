"""Which shipped font writes which script; used for ASS captions and for everything Pillow draws.

The one invariant: a text is always given a font; a script without a shipped one is logged, never an error.
"""

import bisect
import unicodedata
from pathlib import Path
from typing import Final, NamedTuple

import structlog

log = structlog.get_logger()

FONTS_FOLDER: Final = Path(__file__).parent / "fonts"
"""Open fonts (SIL OFL 1.1) that come with the mesh."""

LATIN_FAMILY: Final = "Inter"
"""Latin, Greek and Cyrillic, and every sign that belongs to no script."""


class Script(NamedTuple):
    """A script: its name, the family that writes it, and the shipped file (None: only a system font can)."""

    name: str
    family: str
    file: str | None


_LATIN: Final = Script("latin", LATIN_FAMILY, "Inter-Bold.otf")
_CJK: Final = Script("cjk", "Noto Sans CJK SC", None)

_BLOCKS: Final[tuple[tuple[int, int, Script], ...]] = (
    (0x0590, 0x05FF, Script("hebrew", "Noto Sans Hebrew", "NotoSansHebrew-Bold.ttf")),
    (0x0600, 0x077F, Script("arabic", "Noto Sans Arabic", "NotoSansArabic-Bold.ttf")),
    (0x08A0, 0x08FF, Script("arabic", "Noto Sans Arabic", "NotoSansArabic-Bold.ttf")),
    (0x0900, 0x097F, Script("devanagari", "Noto Sans Devanagari", "NotoSansDevanagari-Bold.ttf")),
    (0x0980, 0x09FF, Script("bengali", "Noto Sans Bengali", "NotoSansBengali-Bold.ttf")),
    (0x0A00, 0x0A7F, Script("gurmukhi", "Noto Sans Gurmukhi", "NotoSansGurmukhi-Bold.ttf")),
    (0x0A80, 0x0AFF, Script("gujarati", "Noto Sans Gujarati", "NotoSansGujarati-Bold.ttf")),
    (0x0B80, 0x0BFF, Script("tamil", "Noto Sans Tamil", "NotoSansTamil-Bold.ttf")),
    (0x0C00, 0x0C7F, Script("telugu", "Noto Sans Telugu", "NotoSansTelugu-Bold.ttf")),
    (0x0C80, 0x0CFF, Script("kannada", "Noto Sans Kannada", "NotoSansKannada-Bold.ttf")),
    (0x0D00, 0x0D7F, Script("malayalam", "Noto Sans Malayalam", "NotoSansMalayalam-Bold.ttf")),
    (0x0E00, 0x0E7F, Script("thai", "Noto Sans Thai", "NotoSansThai-Bold.ttf")),
    (0x1100, 0x11FF, _CJK),
    (0x2E80, 0xA4CF, _CJK),
    (0xAC00, 0xD7FF, _CJK),
    (0xF900, 0xFAFF, _CJK),
    (0xFB1D, 0xFB4F, Script("hebrew", "Noto Sans Hebrew", "NotoSansHebrew-Bold.ttf")),
    (0xFB50, 0xFDFF, Script("arabic", "Noto Sans Arabic", "NotoSansArabic-Bold.ttf")),
    (0xFE70, 0xFEFF, Script("arabic", "Noto Sans Arabic", "NotoSansArabic-Bold.ttf")),
    (0xFF00, 0xFFEF, _CJK),
    (0x20000, 0x3FFFF, _CJK),
)
_BLOCK_STARTS: Final = [block[0] for block in _BLOCKS]

_SYSTEM_CJK: Final = (
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc"),
    Path("/usr/share/fonts/noto-cjk/NotoSansCJK-Bold.ttc"),
)
"""Where Debian's fonts-noto-cjk and its cousins lie; CJK is too large to ship."""


def script_of_character(character: str) -> Script | None:
    """The script of a letter or mark; None for spaces, digits and signs, which every font of ours has."""
    code = ord(character)
    at = bisect.bisect_right(_BLOCK_STARTS, code) - 1
    if at >= 0 and code <= _BLOCKS[at][1]:
        return _BLOCKS[at][2]
    return _LATIN if unicodedata.category(character)[0] == "L" else None


def script_of(text: str) -> Script:
    """The script most letters of ``text`` belong to; Latin when there is none."""
    counts: dict[Script, int] = {}
    for character in text:
        script = script_of_character(character)
        if script is not None:
            counts[script] = counts.get(script, 0) + 1
    return max(counts, key=lambda script: counts[script]) if counts else _LATIN


def family_of(text: str) -> str:
    """Font family for ASS; fontconfig may find a system font for what is not shipped."""
    return script_of(text).family


def font_file(text: str, *, heading: bool = False, light: bool = False) -> Path:
    """The font file with which Pillow draws ``text``.

    Args:
        text: what will be written; its main script decides.
        heading: the display cut, for large Latin text.
        light: the medium cut, for secondary Latin text.
    """
    script = script_of(text)
    if script.name == "latin":
        name = "InterDisplay-ExtraBold.otf" if heading else "Inter-Medium.otf" if light else "Inter-Bold.otf"
        return FONTS_FOLDER / name
    if script.file is not None:
        return FONTS_FOLDER / script.file
    found = next((path for path in _SYSTEM_CJK if path.is_file()), None)
    if found is None:
        log.warning("script_without_font", script=script.name, fix="apt-get install fonts-noto-cjk")
        return FONTS_FOLDER / "Inter-Bold.otf"
    return found


def unsupported_scripts(text: str) -> set[str]:
    """Names of scripts in ``text`` for which no font is shipped."""
    scripts = (script_of_character(character) for character in text)
    return {script.name for script in scripts if script is not None and script.file is None}
