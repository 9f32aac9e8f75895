"""TransformersWhisperEngine: Whisper in its original format, by transformers; task transcription.

The one invariant: words get their times from a second pass that is given the text, so decoding itself keeps the fast
attention and no attention of the whole text is held.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serving.backends.ray.engines.network.checkpoint import pretrained, reading
from serving.backends.ray.engines.network.decoding import Watch
from serving.backends.ray.engines.network.engine import needs
from serving.backends.ray.engines.whisper.alignment import SECONDS_PER_FRAME, starts_of
from serving.backends.ray.engines.whisper.engine import Heard, Tick, WhisperEngine
from serving.backends.ray.engines.whisper.words import read_tokenizer, words_of
from serving.backends.ray.parts.place import by_torch
from serving.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import torch
    from faster_whisper.tokenizer import Tokenizer
    from numpy.typing import NDArray
    from transformers.modeling_outputs import BaseModelOutput


class TransformersWhisperEngine(WhisperEngine["torch.Tensor"]):
    """WhisperForConditionalGeneration; fine-tunes load without conversion."""

    def load(self) -> None:
        """Read network, feature extractor, tokenizer and the special tokens' numbers."""
        transformers = needs(lambda: __import__("transformers"), "transformers")
        needs(lambda: __import__("faster_whisper"), "faster-whisper")
        folder, name = self.weights.folder, self.model.name
        kind = transformers.WhisperForConditionalGeneration
        self.network = pretrained(kind, self.model, folder, self.placement.device, dtype=self.placement.dtype)
        extractor = transformers.WhisperFeatureExtractor
        self.extractor = reading(name, lambda: extractor.from_pretrained(folder, local_files_only=True), folder)
        self.words = read_tokenizer(folder, name)
        self.settings = self.network.generation_config
        self.settings.max_length = self.tokens
        missing = [key for key in ("no_timestamps_token_id", "alignment_heads") if not hasattr(self.settings, key)]
        if missing:
            fix = "take generation_config.json from the original model"
            raise BadInput(
                f"generation_config.json lacks {', '.join(missing)}", field=f"{name}: {folder.name}", fix=fix
            )
        self.ids = {token[2:-2]: index for token, index in getattr(self.settings, "lang_to_id", {}).items()}
        self.languages = list(self.ids) if getattr(self.settings, "is_multilingual", False) else ["en"]

    def encode(self, sounds: "Sequence[NDArray[np.float32]]", tick: Tick) -> "torch.Tensor":
        """Log-mel features of 30 s each, through the encoder: ``(batch, 1500, width)``."""
        tick(0)
        features = self.extractor(list(sounds), sampling_rate=16_000, return_tensors="pt").input_features
        there = features.to(self.placement.device, self.placement.dtype)
        encoded: torch.Tensor = self.network.model.encoder(there).last_hidden_state
        return encoded

    def detect(self, encoded: "torch.Tensor", tick: Tick) -> tuple[str, float]:
        """By the first decoded token, among the languages."""
        if self.languages == ["en"]:
            return "en", 1.0
        codes = list(self.ids)
        scores = self._first_scores(encoded)[0, [self.ids[code] for code in codes]].softmax(-1)
        best = int(scores.argmax())
        return codes[best], float(scores[best])

    def decode(
        self, encoded: "torch.Tensor", seconds: Sequence[float], language: str, tick: Tick, forbid_repeats: int = 0
    ) -> Sequence[Heard]:
        """Decode, then align."""
        import torch
        from faster_whisper.tokenizer import Tokenizer

        silent = self._first_scores(encoded).softmax(-1)[:, self.settings.no_timestamps_token_id - 1]
        multilingual = len(self.languages) > 1
        spoken = {"language": language, "task": "transcribe"} if multilingual else {}
        sequences = self.network.generate(
            encoder_outputs=_outputs(encoded), return_timestamps=True, force_unique_generate_call=True, do_sample=False,
            num_beams=self.beams, no_repeat_ngram_size=forbid_repeats, logits_processor=[Watch(self.model.name, tick)],
            attention_mask=torch.ones(len(seconds), 3000, dtype=torch.int32, device=self.placement.device), **spoken,
        )  # fmt: skip
        tokenizer = Tokenizer(self.words, multilingual, task="transcribe", language=language)
        texts = [[token for token in row if token < tokenizer.eot] for row in sequences.tolist()]
        aligned = self._aligned(encoded, texts, seconds, tokenizer)
        return [
            Heard(words_of(tokenizer, text, starts), sure, float(none))
            for text, (starts, sure), none in zip(texts, aligned, silent, strict=True)
        ]

    def unload(self) -> None:
        """Free the device."""
        self.network = None

    def _first_scores(self, encoded: "torch.Tensor") -> "torch.Tensor":
        """What follows the start token: ``(batch, vocabulary)``, float32."""
        import torch

        start = torch.full((len(encoded), 1), self.settings.decoder_start_token_id, device=self.placement.device)
        return self._scores(encoded, start)[:, -1].float()

    def _scores(self, encoded: "torch.Tensor", ids: "torch.Tensor") -> "torch.Tensor":
        """What follows each token: ``(batch, tokens, vocabulary)``.

        With an empty cache, as decoding begins: an exported decoder knows calls of one kind less.
        """
        from transformers import DynamicCache, EncoderDecoderCache

        scores: torch.Tensor = self.network(
            encoder_outputs=_outputs(encoded),
            decoder_input_ids=ids,
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
            use_cache=True,
        ).logits
        return scores

    def _aligned(
        self,
        encoded: "torch.Tensor",
        texts: Sequence[Sequence[int]],
        seconds: Sequence[float],
        tokenizer: "Tokenizer",
    ) -> list[tuple[list[float], float]]:
        """For each sound where its tokens begin and the last one ends, and their mean log probability."""
        import torch

        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        longest = max(len(text) for text in texts)
        rows = [[*prompt, *text, *[tokenizer.eot] * (longest - len(text) + 1)] for text in texts]
        ids = torch.tensor(rows, device=self.placement.device)
        with by_torch(self.network.model.decoder), self._attention() as kept:
            scores = self._scores(encoded, ids)
        weights = torch.stack(list(kept), dim=1).float().cpu().numpy()
        found = []
        for row, text in enumerate(texts):
            end, frames = len(prompt) + len(text), max(1, round(seconds[row] / SECONDS_PER_FRAME))
            said = torch.tensor([*text, tokenizer.eot], device=self.placement.device)
            sure = scores[row, len(prompt) - 1 : end].float().log_softmax(-1).gather(1, said[:, None]).mean()
            heads = weights[row, :, len(prompt) - 1 : end, :frames]
            found.append((starts_of(heads, self.network.config.median_filter_width), float(sure)))
        return found

    @contextmanager
    def _attention(self) -> "Iterator[Iterator[torch.Tensor]]":
        """Weights of the alignment heads in the pass inside: ``(batch, tokens, frames)`` for each, read after it."""
        kept: dict[tuple[int, str], torch.Tensor] = {}
        handles = []
        for layer in sorted({layer for layer, _ in self.settings.alignment_heads}):
            attention = self.network.model.decoder.layers[layer].encoder_attn
            for part, module in (("query", attention.q_proj), ("key", attention.k_proj)):
                handles.append(module.register_forward_hook(_keeping(kept, (layer, part))))
        try:
            yield (self._weights(kept, layer, head) for layer, head in self.settings.alignment_heads)
        finally:
            for handle in handles:
                handle.remove()

    def _weights(self, kept: "dict[tuple[int, str], torch.Tensor]", layer: int, head: int) -> "torch.Tensor":
        width: int = self.network.config.d_model // self.network.config.decoder_attention_heads
        own = slice(head * width, (head + 1) * width)
        query, key = kept[layer, "query"][..., own], kept[layer, "key"][..., own]
        weights: torch.Tensor = (query.float() @ key.float().transpose(1, 2) * width**-0.5).softmax(-1)
        return weights


def _keeping(kept: "dict[tuple[int, str], torch.Tensor]", name: tuple[int, str]) -> Callable[..., None]:
    def keep(module: object, inputs: object, output: "torch.Tensor") -> None:
        kept[name] = output

    return keep


def _outputs(encoded: "torch.Tensor") -> "BaseModelOutput":
    """As transformers wants it; made anew for each call, because beam search repeats its rows in place."""
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=encoded)
