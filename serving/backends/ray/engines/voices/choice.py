"""Which voice speaks a request, from the model's card; asked by the engines of neural voices before a request waits.

The one invariant: it is pure; an unknown voice or language is refused with what there is instead.
"""

import difflib
from collections.abc import Collection

from serving.errors import BadInput, Unsupported
from serving.protocol.tasks import SpeechRequest
from serving.repository.model import Model, Voice


def choose(model: Model, request: SpeechRequest) -> Voice:
    """The voice that a request names.

    Raises:
        BadInput: no such voice.
        Unsupported: the model does not speak the language.
    """
    check_language(model, request.language)
    voice = model.card.voices.get(request.voice)
    if voice is None:
        raise BadInput(
            f"there is no voice {request.voice!r}", field="voice", fix=_nearest(request.voice, model.card.voices)
        )
    return voice


def check_language(model: Model, language: str) -> str:
    """The card's own name of a language; ``en-gb`` is spoken by a model that speaks ``en``.

    Raises:
        Unsupported: the model does not speak it.
    """
    known = {tag.lower(): tag for tag in model.card.languages}
    wanted = language.lower()
    found = known.get(wanted) or known.get(wanted.partition("-")[0])
    if found is None:
        raise Unsupported(
            f"{model.name} does not speak {language!r}", field="language", fix=_nearest(language, model.card.languages)
        )
    return found


def _nearest(wanted: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"There are: {', '.join(sorted(known))}"
