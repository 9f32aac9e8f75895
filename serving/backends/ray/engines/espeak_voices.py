"""Voices and languages of the espeak engine: from a request's names to espeak-ng's parameters; pure.

The one invariant: a voice keeps its vocal tract, pitch and pace in every language; only the pronunciation changes.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import BadInput, Unsupported
from serving.repository.model import Model

ESPEAK_LANGUAGES: Final[Mapping[str, str]] = {
    "ar": "ar", "bn": "bn", "ca": "ca", "cs": "cs", "da": "da", "de": "de", "el": "el", "en": "en",
    "en-gb": "en", "en-in": "en", "en-us": "en-us", "en-sc": "en-gb-scotland", "es": "es", "es-mx": "es-419",
    "fi": "fi", "fr": "fr", "fr-be": "fr-be", "fr-ch": "fr-ch", "gu": "gu", "he": "he", "hi": "hi", "hr": "hr",
    "hu": "hu", "id": "id", "it": "it", "kn": "kn", "ko": "ko", "ml": "ml", "mr": "mr", "ne": "ne", "nl": "nl",
    "pa": "pa", "pl": "pl", "pt": "pt", "pt-br": "pt-br", "ro": "ro", "ru": "ru", "sa": "hi", "sk": "sk", "sv": "sv",
    "sw": "sw", "ta": "ta", "te": "te", "tr": "tr", "uk": "uk", "ur": "ur", "vi": "vi",
}  # fmt: skip
"""Language tags to espeak-ng 1.52 voices: those that separate words by spaces.

Each was seen to give sound and phonemes, some with a sentence of another language only; no speaker judged them."""


class VoiceOptions(BaseModel):
    """``options`` of a voice in model.yaml.

    Attributes:
        variant: a file of espeak-ng's ``voices/!v`` that shapes the vocal tract.
        pitch: 0 to 99, 50 is the variant's own.
        pitch_range: 0 (monotone) to 99.
        rate_wpm: pace at speed 1, before ``size`` is taken into account.
        size: factor on all frequencies by resampling: above 1 a smaller speaker.
        gap_ms: pause put between words.
        treble_db: level above 4 kHz on top of the common filter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str = Field(pattern=r"^[A-Za-z0-9]{1,20}$")
    pitch: int = Field(default=50, ge=0, le=99)
    pitch_range: int = Field(default=50, ge=0, le=99)
    rate_wpm: int = Field(default=160, ge=90, le=300)
    size: float = Field(default=1.0, ge=0.8, le=1.3)
    gap_ms: int = Field(default=0, ge=0, le=200)
    treble_db: float = Field(default=0.0, ge=-12, le=6)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice in a language, ready for espeak-ng; ``espeak_voice`` is for example ``en-us+f2``."""

    espeak_voice: str
    options: VoiceOptions


def load_voices(model: Model) -> dict[str, VoiceOptions]:
    """Check the voices of a model's card; raises :class:`BadInput` that names the field."""
    voices = {}
    for name, voice in model.card.voices.items():
        try:
            voices[name] = VoiceOptions.model_validate(voice.options)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadInput(
                first["msg"],
                field=f"{model.name}/model.yaml:voices.{name}.options.{place}",
                fix="correct the value",
            ) from error
    for language in model.card.languages:
        if language.lower() not in ESPEAK_LANGUAGES:
            raise BadInput(
                f"espeak-ng is not set up for {language!r}",
                field=f"{model.name}/model.yaml:languages",
                fix=f"use some of {', '.join(ESPEAK_LANGUAGES)}",
            )
    return voices


def choose(model: Model, voices: Mapping[str, VoiceOptions], voice: str, language: str) -> Speaker:
    """The speaker of a request.

    A language without region is spoken in the voice's own accent where that is of the same language.

    Raises:
        BadInput: no such voice; the fix names the nearest and lists them all.
        Unsupported: the model does not speak the language.
    """
    if voice not in voices:
        near = difflib.get_close_matches(voice.lower(), voices, n=1, cutoff=0.5)
        raise BadInput(
            f"there is no voice {voice!r}",
            field="voice",
            fix=(f"did you mean {near[0]!r}? " if near else "") + f"Voices: {', '.join(sorted(voices))}",
        )
    return Speaker(f"{_base(model, voice, language)}+{voices[voice].variant}", voices[voice])


def _base(model: Model, voice: str, language: str) -> str:
    wanted, own = language.lower(), model.card.voices[voice].language.lower()
    primary = wanted.partition("-")[0]
    if primary not in {tag.lower().partition("-")[0] for tag in model.card.languages}:
        near = difflib.get_close_matches(wanted, model.card.languages, n=1, cutoff=0.6)
        raise Unsupported(
            f"the speech model does not speak {language!r}",
            field="language",
            fix=(f"did you mean {near[0]!r}? " if near else "") + f"Languages: {', '.join(model.card.languages)}",
        )
    if wanted == primary == own.partition("-")[0]:
        wanted = own
    return ESPEAK_LANGUAGES.get(wanted) or ESPEAK_LANGUAGES[primary]
