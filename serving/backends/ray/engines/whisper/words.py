"""Tokens and their times, joined into words; used by both Whisper engines.

The one invariant: every character of the text is in exactly one word, in order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.errors import BadInput, foreign_text

if TYPE_CHECKING:
    import tokenizers
    from faster_whisper.tokenizer import Tokenizer

_BEFORE: Final = "\"'“¿([{-"
_AFTER: Final = "\"'.。,，!！?？:：”)]}、"
"""Punctuation that belongs to the next and to the last word (openai/whisper, timing.py)."""


Timed = tuple[str, float, float]
"""A word, and where it begins and ends in seconds."""


def words_of(tokenizer: "Tokenizer", tokens: Sequence[int], starts_s: Sequence[float]) -> list[Timed]:
    """Words with their times.

    Args:
        tokenizer: knows the language, and so what a word is.
        tokens: of the text alone, without special ones.
        starts_s: where each token begins, and, one more, where the last one ends; ascending.
    """
    words, of_words = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    alignment = []
    first = 0
    for word, some in zip(words[:-1], of_words[:-1], strict=True):
        end = first + len(some)
        alignment.append({"word": word, "tokens": some, "start": starts_s[first], "end": starts_s[end]})
        first = end
    return joined(alignment)


def read_tokenizer(folder: Path, name: str) -> "tokenizers.Tokenizer":
    """The tokenizer of a checkpoint.

    Args:
        folder: with ``tokenizer.json``.
        name: of the model, for messages.

    Raises:
        BadInput: it is not there or damaged.
    """
    import tokenizers

    field = f"{name}: {folder.name}/tokenizer.json"
    if not (folder / "tokenizer.json").is_file():
        raise BadInput("not found", field=field, fix="copy it from the original model")
    try:
        return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more exact
        raise BadInput(foreign_text(error), field=field, fix="copy it from the original model") from error


def joined(alignment: list[dict[str, Any]]) -> list[Timed]:
    """Punctuation goes with its word.

    Args:
        alignment: ``word``, ``tokens``, ``start`` and ``end`` in seconds, as faster-whisper's ``find_alignment``
            returns them; changed in place.
    """
    from faster_whisper.transcribe import merge_punctuations

    merge_punctuations(alignment, _BEFORE, _AFTER)
    found = [(str(each["word"]).strip(), float(each["start"]), float(each["end"])) for each in alignment]
    return [(word, start_s, end_s) for word, start_s, end_s in found if word]
