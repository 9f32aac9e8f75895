"""What differs between translators of transformers: classes, language codes, special tokens; used by the engine.

The one invariant: special tokens come from here alone; what a text holds that looks like one is text.
"""

import json
import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from serving.backends.ray.engines.translation.languages import code_of
from serving.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FLORES: Final = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


class Family(ABC):
    """One kind of translator.

    Args:
        tokenizer: of transformers.
        network: of transformers.
        options: of the model's card.

    Attributes:
        network_class: its name in transformers.
        tokenizer_class: the same.
        hears: whether it translates speech too.
    """

    network_class: ClassVar[str]
    tokenizer_class: ClassVar[str]
    hears: ClassVar[bool] = False

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", network: "PreTrainedModel", options: Mapping[str, object]
    ) -> None:
        self.tokenizer, self.network, self.options = tokenizer, network, options
        self._lock = threading.Lock()

    @abstractmethod
    def sources(self) -> Collection[str]:
        """Codes of the languages that it reads."""

    def targets(self) -> Collection[str]:
        """Codes of the languages that it writes."""
        return self.sources()

    @abstractmethod
    def framed(self, ids: Sequence[int], source: str, target: str) -> list[int]:
        """A text's tokens with the special ones that tell languages and end."""

    @abstractmethod
    def start(self, target: str) -> dict[str, Any]:
        """What ``generate`` is told of the target language; lists are repeated for each row."""

    def codes(self, source: str, target: str) -> tuple[str, str]:
        """The model's codes of two language tags.

        Raises:
            BadInput: it does not know one of them.
        """
        return (
            code_of(source, self.sources(), "source_language"),
            code_of(target, self.targets(), "target_language"),
        )

    def encode(self, text: str, source: str, target: str) -> tuple[int, ...]:
        """A text as the network reads it; none at all where there is nothing to translate."""
        with self._lock:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(self.framed(ids, source, target)) if ids and text.strip() else ()

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of generated rows, without special tokens."""
        special = {*self.tokenizer.all_special_ids, *self.special()}
        kept = [[index for index in row if index not in special] for row in rows]
        with self._lock:
            return [str(text).strip() for text in self.tokenizer.batch_decode(kept)]

    def special(self) -> Collection[int]:
        """Tokens of languages, which are no part of a text."""
        return ()

    @property
    def end(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)


class Marian(Family):
    """One direction, or one language into several that a first token names (``>>hin<<``).

    ``options.source_language`` and ``target_language`` say which; without them the tokenizer's settings do.
    """

    network_class = "MarianMTModel"
    tokenizer_class = "MarianTokenizer"

    def sources(self) -> Collection[str]:
        """The card's, or the tokenizer's."""
        return [str(self.options.get("source_language") or self.tokenizer.source_lang or "en")]

    def targets(self) -> Collection[str]:
        """Those with a token, or the only one."""
        named = [code.strip("<>") for code in self.tokenizer.supported_language_codes]
        return named or [str(self.options.get("target_language") or self.tokenizer.target_lang or "und")]

    def framed(self, ids: Sequence[int], source: str, target: str) -> list[int]:
        """``>>target<<`` where there are several, the text, end."""
        first = self.tokenizer.encoder.get(f">>{target}<<")
        return [*([] if first is None else [first]), *ids, self.end]

    def start(self, target: str) -> dict[str, Any]:
        """Nothing; the first token told it."""
        return {}

    def special(self) -> Collection[int]:
        """The languages' tokens."""
        return [self.tokenizer.encoder[code] for code in self.tokenizer.supported_language_codes]


class M2m100(Family):
    """M2M100: any of a hundred languages into any other."""

    network_class = "M2M100ForConditionalGeneration"
    tokenizer_class = "M2M100Tokenizer"

    def languages(self) -> Mapping[str, int]:
        """Tokens of the languages, by code."""
        return dict(self.tokenizer.lang_code_to_id)

    def sources(self) -> Collection[str]:
        """All."""
        return self.languages().keys()

    def framed(self, ids: Sequence[int], source: str, target: str) -> list[int]:
        """Source language, text, end."""
        return [self.languages()[source], *ids, self.end]

    def start(self, target: str) -> dict[str, Any]:
        """The target's token is the first that is written."""
        return {"forced_bos_token_id": self.languages()[target]}

    def special(self) -> Collection[int]:
        """The languages' tokens."""
        return self.languages().values()


class Nllb(M2m100):
    """NLLB-200: M2M100's network with codes of FLORES-200, such as ``hin_Deva``."""

    tokenizer_class = "NllbTokenizer"

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", network: "PreTrainedModel", options: Mapping[str, object]
    ) -> None:
        super().__init__(tokenizer, network, options)
        added = tokenizer.get_added_vocab()
        self._languages = {code: index for code, index in added.items() if _FLORES.fullmatch(code)}

    def languages(self) -> Mapping[str, int]:
        """Tokens of the languages, by code."""
        return self._languages


class Seamless(M2m100):
    """SeamlessM4T v2: texts and speech into texts of about a hundred languages."""

    network_class = "SeamlessM4Tv2Model"
    tokenizer_class = "SeamlessM4TTokenizer"
    hears = True

    def languages(self) -> Mapping[str, int]:
        """Tokens of the languages, by code; generation_config.json has them."""
        return dict(self.network.generation_config.text_decoder_lang_to_code_id)

    def start(self, target: str) -> dict[str, Any]:
        """The target's token follows the start token."""
        return {"decoder_input_ids": [self.network.generation_config.decoder_start_token_id, self.languages()[target]]}


def family_of(folder: Path, field: str) -> type[Family]:
    """The family of a checkpoint, by its configuration.

    Args:
        folder: with ``config.json`` and ``tokenizer_config.json``.
        field: the model and its folder, for messages.

    Raises:
        BadInput: there is no configuration, or it names no translator.
    """
    kind = _setting(folder / "config.json", "model_type", field)
    if kind == "m2m_100":
        named = _setting(folder / "tokenizer_config.json", "tokenizer_class", field)
        return Nllb if named.startswith("Nllb") else M2m100
    families: dict[str, type[Family]] = {"marian": Marian, "seamless_m4t_v2": Seamless}
    if kind not in families:
        known = ", ".join(sorted([*families, "m2m_100"]))
        raise BadInput(f"config.json names the architecture {kind!r}", field=field, fix=f"use one of {known}")
    return families[kind]


def quietly_read(tokenizer: "type[PreTrainedTokenizerBase]", folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint; that Marian would like sacremoses, for odd punctuation, need not be told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return tokenizer.from_pretrained(folder, local_files_only=True)


def _setting(file: Path, name: str, field: str) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get(name))
    except (OSError, ValueError, AttributeError) as error:
        fix = "take it from the original model"
        raise BadInput(f"{file.name} is missing or damaged", field=field, fix=fix) from error
