"""The languages that Whisper hears, by its own codes, and how requests name them; asked by the Whisper engines.

The one invariant: a language that the model has no token for is refused with the list of those it has.
"""

from collections.abc import Collection
from typing import Final

from serving.errors import BadInput

WHISPER_LANGUAGES: Final = (
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su", "yue",
)  # fmt: skip
"""In the order of their tokens (openai/whisper, tokenizer.py); the last one came with large-v3."""
WITHOUT_SPACES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Written without spaces, so that a word is what decodes to whole characters (openai/whisper, tokenizer.py)."""
_OTHERWISE: Final = {"jv": "jw", "fil": "tl", "nb": "no", "cmn": "zh", "iw": "he", "in": "id", "ji": "yi"}
"""Codes of BCP 47 that Whisper has by another name."""
_BACK: Final = {"jw": "jv"}


def whisper_code(language: str, known: Collection[str], field: str = "language") -> str:
    """Whisper's code of a language tag; regions make no difference to it.

    Args:
        language: such as ``en``, ``pt-br``, ``jv``.
        known: codes that the model has tokens for.
        field: of the request, for the message.

    Raises:
        BadInput: the model does not know it.
    """
    primary = language.partition("-")[0].lower()
    code = _OTHERWISE.get(primary, primary)
    if code not in known:
        fix = f"leave it out to have it detected, or use one of {', '.join(sorted(known))}"
        raise BadInput(f"the model does not know {language!r}", field=field, fix=fix)
    return code


def tag_of(code: str) -> str:
    """The language tag of a code of Whisper's."""
    return _BACK.get(code, code)
