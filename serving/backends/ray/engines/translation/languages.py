"""Language tags of requests and the codes that families of translators have for them; asked by the families.

The one invariant: a language that the model has no code for is refused with the list of those it has.
"""

from collections.abc import Collection, Iterator
from typing import Final

from serving.errors import BadInput

THREE_LETTERS: Final = {
    "af": "afr", "ak": "aka", "am": "amh", "ar": "arb", "as": "asm", "ay": "ayr", "az": "azj", "ba": "bak",
    "be": "bel", "bg": "bul", "bm": "bam", "bn": "ben", "bo": "bod", "bs": "bos", "ca": "cat", "cs": "ces",
    "cy": "cym", "da": "dan", "de": "deu", "dz": "dzo", "ee": "ewe", "el": "ell", "en": "eng", "eo": "epo",
    "es": "spa", "et": "est", "eu": "eus", "fa": "pes", "fi": "fin", "fj": "fij", "fo": "fao", "fr": "fra",
    "ga": "gle", "gd": "gla", "gl": "glg", "gn": "grn", "gu": "guj", "ha": "hau", "he": "heb", "hi": "hin",
    "hr": "hrv", "ht": "hat", "hu": "hun", "hy": "hye", "id": "ind", "ig": "ibo", "is": "isl", "it": "ita",
    "ja": "jpn", "jv": "jav", "ka": "kat", "kg": "kon", "ki": "kik", "kk": "kaz", "km": "khm", "kn": "kan",
    "ko": "kor", "ks": "kas", "ku": "kmr", "ky": "kir", "lb": "ltz", "lg": "lug", "li": "lim", "ln": "lin",
    "lo": "lao", "lt": "lit", "lv": "lvs", "mg": "plt", "mi": "mri", "mk": "mkd", "ml": "mal", "mn": "khk",
    "mr": "mar", "ms": "zsm", "mt": "mlt", "my": "mya", "nb": "nob", "ne": "npi", "nl": "nld", "nn": "nno",
    "no": "nob", "ny": "nya", "oc": "oci", "om": "gaz", "or": "ory", "pa": "pan", "pl": "pol", "ps": "pbt",
    "pt": "por", "qu": "quy", "rn": "run", "ro": "ron", "ru": "rus", "rw": "kin", "sa": "san", "sc": "srd",
    "sd": "snd", "sg": "sag", "si": "sin", "sk": "slk", "sl": "slv", "sm": "smo", "sn": "sna", "so": "som",
    "sq": "als", "sr": "srp", "ss": "ssw", "st": "sot", "su": "sun", "sv": "swe", "sw": "swh", "ta": "tam",
    "te": "tel", "tg": "tgk", "th": "tha", "ti": "tir", "tk": "tuk", "tl": "tgl", "tn": "tsn", "tr": "tur",
    "ts": "tso", "tt": "tat", "tw": "twi", "ug": "uig", "uk": "ukr", "ur": "urd", "uz": "uzn", "vi": "vie",
    "wo": "wol", "xh": "xho", "yi": "ydd", "yo": "yor", "zh": "zho", "zu": "zul",
}  # fmt: skip
"""ISO 639-1 to the code of FLORES-200, which NLLB and Seamless use: of a macrolanguage its largest member."""
_TWO_LETTERS: Final = {three: two for two, three in THREE_LETTERS.items()}
_ALSO: Final = {
    "zh": ("cmn",), "cmn": ("zh", "zho"), "fil": ("tl", "tgl"), "tl": ("fil",), "nb": ("no",), "no": ("nb",),
    "ar": ("ara",), "iw": ("he", "heb"), "in": ("id", "ind"), "ku": ("ckb",), "sw": ("swa",), "ms": ("msa",),
}  # fmt: skip
"""Other codes for the same, by family."""
_SCRIPTS: Final = {
    "arb": "Arab",
    "zho": "Hans",
    "ace": "Latn",
    "bjn": "Latn",
    "kas": "Arab",
    "knc": "Latn",
    "min": "Latn",
}
"""The script that is meant where a tag names none and there are several."""
_TRADITIONAL: Final = frozenset({"tw", "hk", "mo"})


def code_of(language: str, known: Collection[str], field: str) -> str:
    """The model's code of a language tag.

    Args:
        language: such as ``en``, ``hi``, ``pt-br``, ``zh-Hant``.
        known: the model's codes, such as ``hi``, ``hin``, ``hin_Deva`` or ``cmn_Hant``.
        field: of the request, for the message.

    Raises:
        BadInput: it has none.
    """
    primary, _, part = language.partition("-")
    script = "Hant" if primary in {"zh", "cmn"} and part.lower() in _TRADITIONAL else part.title()
    for name in _names(primary.lower()):
        for code in (f"{name}_{script}", f"{name}_{_SCRIPTS.get(name, '')}", name):
            if code in known:
                return code
        if scripts := sorted(code for code in known if code.startswith(f"{name}_")):
            return scripts[0]
    fix = f"use one of {', '.join(tags_of(known))}"
    raise BadInput(f"the model does not know {language!r}", field=field, fix=fix)


def tags_of(codes: Collection[str]) -> list[str]:
    """Tags of a model's codes, shortest form, sorted."""
    two = _TWO_LETTERS | {"cmn": "zh"}
    return sorted({two.get(code.partition("_")[0], code.partition("_")[0]) for code in codes})


def _names(primary: str) -> Iterator[str]:
    yield primary
    yield from (table[primary] for table in (THREE_LETTERS, _TWO_LETTERS) if primary in table)
    yield from _ALSO.get(primary, ())
