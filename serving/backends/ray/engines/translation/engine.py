"""TranslationEngine: texts, and speech where the network hears, into another language; task translation.

The one invariant: as many texts come back as were given, in their order; none is cut before it is read, and what is
cut while it is written is told.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from serving.backends.ray.engines.network.checkpoint import pretrained, reading
from serving.backends.ray.engines.network.decoding import Watch
from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.inputs import check_tokens, read_sound
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.translation.families import Family, family_of, quietly_read
from serving.backends.ray.engines.translation.languages import tags_of
from serving.backends.ray.engines.whisper.windows import RATE_HZ, Window, windows
from serving.errors import BadInput
from serving.protocol.tasks import MAX_SECONDS, TranslationRequest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_TOKENS: Final = 256
_SMALL: Final = 64
"""Texts of a request that shares passes with others; nobody waits for another one's whole film."""


class Script(NamedTuple):
    """A prepared request: token rows (empty for blank texts), or windows of speech, and the model's language codes."""

    rows: tuple[tuple[int, ...], ...]
    speech: tuple[Window, ...]
    source: str
    target: str
    hears: bool

    @property
    def parts(self) -> "Sequence[tuple[int, ...] | Window]":
        """What is translated by itself."""
        return self.speech if self.hears else self.rows


class _Row(NamedTuple):
    request: int
    place: int
    what: "tuple[int, ...] | Window"

    @property
    def size(self) -> int:
        return len(self.what.samples if isinstance(self.what, Window) else self.what)


class Translated(NamedTuple):
    """Texts in order, and the indexes of those that end where the model stopped."""

    texts: list[str]
    cut: list[int]


class TranslationEngine(NetworkEngine[TranslationRequest, Script, Translated]):
    """Marian, M2M100, NLLB or Seamless, as the checkpoint's configuration says.

    ``options``: ``batch``, texts in a pass; ``beams``, by default the checkpoint's; ``tokens``, 256, the longest text
    that is written. ``limits.audio`` bounds speech in seconds.
    """

    request_type = TranslationRequest
    lower: ClassVar[Sequence[str]] = ("options.batch",)
    family: Family

    def load(self) -> None:
        """Read network and tokenizer, of the family that config.json names."""
        transformers = needs(lambda: __import__("transformers"), "transformers")
        folder, name = self.weights.folder, self.model.name
        kind = family_of(folder, f"{name}: {folder.name}")
        device, dtype = self.placement.device, self.placement.dtype
        network = pretrained(getattr(transformers, kind.network_class), self.model, folder, device, dtype=dtype)
        tokenizer = getattr(transformers, kind.tokenizer_class)
        read = reading(name, lambda: quietly_read(tokenizer, folder), folder)
        self.family = kind(read, network, self.model.card.options)
        self.network: PreTrainedModel = network
        network.generation_config.max_length = None
        if kind.hears:
            extractor = transformers.SeamlessM4TFeatureExtractor
            self.extractor = reading(name, lambda: extractor.from_pretrained(folder, local_files_only=True), folder)

    @property
    def tokens(self) -> int:
        """Longest text that is written."""
        return int(str(self.model.card.options.get("tokens", _TOKENS)))

    @property
    def beams(self) -> int:
        """Hypotheses kept while decoding."""
        return int(str(self.model.card.options.get("beams") or self.network.generation_config.num_beams or 1))

    def check(self, request: TranslationRequest) -> None:
        """Refuse languages that the model does not know, and speech where it only reads."""
        if request.audio is not None and not self.family.hears:
            raise BadInput(
                "the model translates texts alone", field="audio", fix="transcribe it first, or use Seamless"
            )
        self.family.codes(request.source_language, request.target_language)

    def prepare(self, request: TranslationRequest, files: Mapping[str, Path]) -> Script:
        """Tokenise the texts, or decode the speech."""
        source, target = self.family.codes(request.source_language, request.target_language)
        if request.audio is not None:
            most_s = min(MAX_SECONDS, float(self.model.card.limits.get("audio", MAX_SECONDS)))
            samples = read_sound(files["audio"], "audio", RATE_HZ, most_s=most_s)
            return Script((), tuple(windows(samples)), source, target, hears=True)
        rows = []
        for index, text in enumerate(request.texts):
            rows.append(self.family.encode(text, source, target))
            check_tokens(len(rows[-1]), self._most_tokens(), f"texts[{index}]")
        return Script(tuple(rows), (), source, target, hears=False)

    def batch_key(self, prepared: Script) -> Hashable | None:
        """Small requests between the same languages share passes."""
        small = len(prepared.rows) <= _SMALL and len(prepared.speech) <= 1
        return (prepared.source, prepared.target, prepared.hears) if small else None

    def generate(self, batch: Sequence[Script], steps: Steps) -> Sequence[Translated]:
        """Longest first, so that rows of a pass are about equally long."""
        rows = [
            _Row(index, place, what)
            for index, script in enumerate(batch)
            for place, what in enumerate(script.parts)
            if what
        ]
        rows.sort(key=lambda row: -row.size)
        most = max(1, self.most_in_batch())
        passes = [rows[start : start + most] for start in range(0, len(rows), most)]
        texts = [[""] * len(script.parts) for script in batch]
        cut: list[set[int]] = [set() for _ in batch]
        for done, chosen in enumerate(passes):
            wanted = [row for row in chosen if not steps.gone(row.request)]
            for row, (text, whole) in zip(
                wanted, self._translated(wanted, batch[0], done, len(passes), steps), strict=True
            ):
                texts[row.request][row.place] = text
                if not whole:
                    cut[row.request].add(0 if batch[row.request].hears else row.place)
            steps((done + 1) * self.tokens, len(passes) * self.tokens)
        steps.done = len(passes)
        return [
            Translated([" ".join(text for text in some if text)] if script.hears else some, sorted(shorter))
            for script, some, shorter in zip(batch, texts, cut, strict=True)
        ]

    def write(self, request: TranslationRequest, output: Translated, folder: Path) -> Written:
        """The texts; nothing is a file."""
        return Written({"texts": output.texts, "cut": output.cut})

    def smallest(self) -> TranslationRequest:
        """One word, from English into Hindi where the network knows them."""
        sources, targets = tags_of(self.family.sources()), tags_of(self.family.targets())
        source = "en" if "en" in sources else sources[0]
        target = "hi" if "hi" in targets else targets[0]
        return TranslationRequest(texts=["Hello"], source_language=source, target_language=target)

    def unload(self) -> None:
        """Free the device."""
        del self.network, self.family

    def _most_tokens(self) -> int:
        """What the network reads: its positions, or what its tokenizer says if that is less."""
        return int(min(self.network.config.max_position_embeddings, self.family.tokenizer.model_max_length))

    def _translated(
        self, rows: Sequence[_Row], script: Script, done: int, passes: int, steps: Steps
    ) -> list[tuple[str, bool]]:
        """Each row's text, and whether it came to its end."""
        import transformers

        if not rows:
            return []

        def tick(tokens: int) -> None:
            steps(done * self.tokens + min(tokens, self.tokens - 1), passes * self.tokens)

        start = self.family.start(script.target)
        if "decoder_input_ids" in start:
            start["decoder_input_ids"] = self._tensor([start["decoder_input_ids"]] * len(rows))
        mixin: Any = transformers.GenerationMixin  # Seamless' own generate would keep the scores of every step
        written = mixin.generate(
            self.network, **self._inputs(rows), **start, num_beams=self.beams, do_sample=False,
            max_new_tokens=self.tokens, logits_processor=[Watch(self.model.name, tick)],
        )  # fmt: skip
        ids: list[list[int]] = written.tolist()
        return [(text, self._came_to_its_end(row)) for text, row in zip(self.family.decode(ids), ids, strict=True)]

    def _came_to_its_end(self, row: list[int]) -> bool:
        """Whether the network ended the text, and not the bound, at which some configurations write an end."""
        written = row[1:]
        if self.family.end not in written:
            return False
        forced = self.network.generation_config.forced_eos_token_id is not None
        return not forced or written.index(self.family.end) + 1 < self.tokens

    def _inputs(self, rows: Sequence[_Row]) -> "dict[str, torch.Tensor]":
        """Padded tokens, or features of the speech, and which of them count."""
        if self.family.hears:
            self.network.set_modality("speech" if isinstance(rows[0].what, Window) else "text")
        speech = [row.what.samples / 32768 for row in rows if isinstance(row.what, Window)]
        if speech:
            features = self.extractor(speech, sampling_rate=RATE_HZ, return_tensors="pt")
            device, dtype = self.placement.device, self.placement.dtype
            return {
                "input_features": features["input_features"].to(device, dtype),
                "attention_mask": features["attention_mask"].to(device),
            }
        ids: list[list[int]] = [[*row.what] for row in rows if not isinstance(row.what, Window)]
        longest = max(len(row) for row in ids)
        padding = int(self.family.tokenizer.pad_token_id)
        return {
            "input_ids": self._tensor([[*row, *[padding] * (longest - len(row))] for row in ids]),
            "attention_mask": self._tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        }

    def _tensor(self, rows: Sequence[Sequence[int]]) -> "torch.Tensor":
        import torch

        return torch.tensor(rows, device=self.placement.device)
