"""VitsEngine: VITS and MMS-TTS voices by transformers' VitsModel, sentences in batches; loaded by Ray replicas.

The one invariant: all noise of a sentence comes from its request's seed and its place in the text, so it sounds the
same whatever shares its batch, but for rounding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.backends.ray.engines.network.checkpoint import pretrained, reading
from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.voices.choice import choose
from serving.backends.ray.engines.voices.spelling import Piece, spell
from serving.backends.ray.engines.voices.spoken import Speech, SpokenPiece, join, write_speech
from serving.backends.ray.engines.voices.vits_passes import STEPS_A_GROUP, Line, Passes, Sound, groups
from serving.errors import BadInput
from serving.protocol.tasks import SpeechRequest

if TYPE_CHECKING:
    from transformers import VitsModel

_LONGEST_GROUP: Final = 600
"""Symbols, padding included, that go through the network at once: about half a minute of speech, 1 GB in fp32."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A request as the network takes it."""

    pieces: tuple[Piece, ...]
    lines: tuple[Line, ...]


class VitsEngine(NetworkEngine[SpeechRequest, Utterance, Speech]):
    """Serves ``speech``; a voice's option ``speaker_id`` chooses a speaker of a network with several."""

    request_type = SpeechRequest
    lower = ("text",)

    def load(self) -> None:
        """Load vocabulary and network; see the base."""
        transformers = needs(lambda: __import__("transformers"), "transformers")
        folder = self.weights.folder
        self._vocabulary, settings = reading(self.model.name, lambda: _vocabulary(folder), folder)
        if settings.get("phonemize"):
            raise BadInput(
                "the checkpoint reads phonemes",
                field=f"{self.model.name}: tokenizer_config.json",
                fix="use one that reads letters (MMS-TTS), or the engine coqui",
            )
        self._blanks = bool(settings.get("add_blank", True))
        self._romanised = bool(settings.get("is_uroman", False))
        self.network: VitsModel = pretrained(
            transformers.VitsModel, self.model, folder, self.placement.device, dtype=self.placement.dtype
        )
        self._passes = Passes(self.network, self.model.name)
        self._check_voices(int(self.network.config.num_speakers))

    def check(self, request: SpeechRequest) -> None:
        """A known voice in a known language, text in the network's characters."""
        choose(self.model, request)
        if request.sample is not None:
            raise BadInput("the model clones no voices", field="sample", fix="leave it out, or use a model of XTTS")

    def prepare(self, request: SpeechRequest, files: Mapping[str, Path]) -> Utterance:
        """Spell the text; see the base."""
        speaker = choose(self.model, request).options.get("speaker_id")
        pieces = spell(request.text, self._vocabulary, romanised=self._romanised)
        lines = [
            Line(
                ids=self._ids(piece),
                speaker=None if speaker is None else int(str(speaker)),
                speed=request.speed,
                seed=(request.seed, index),
            )
            for index, piece in enumerate(pieces)
        ]
        return Utterance(tuple(pieces), tuple(lines))

    def batch_key(self, prepared: Utterance) -> str:
        """Any two requests fit together: rows have their own speaker, speed and length."""
        return "speech"

    def generate(self, batch: Sequence[Utterance], steps: Steps) -> Sequence[Speech]:
        """Speak all sentences of all requests, those of like length together."""
        lines = [line for utterance in batch for line in utterance.lines]
        chosen = groups([len(line.ids) for line in lines], max(1, self.most_in_batch()), _LONGEST_GROUP)
        total, done = STEPS_A_GROUP * len(chosen), 0
        said: dict[int, Sound] = {}

        def step() -> None:
            nonlocal done
            done += 1
            steps(done, total)

        for group in chosen:
            sounds = self._passes.run([lines[index] for index in group], step, lambda: steps(done, total))
            said |= dict(zip(group, sounds, strict=True))
        ordered = iter([said[index] for index in range(len(lines))])
        return [self._joined(utterance, [next(ordered) for _ in utterance.lines]) for utterance in batch]

    def write(self, request: SpeechRequest, output: Speech, folder: Path) -> Written:
        """Mono 16-bit WAV with the times of its words."""
        return write_speech(output, folder)

    def unload(self) -> None:
        """Let go of the network."""
        del self._passes, self.network

    def smallest(self) -> SpeechRequest:
        """One word of the letters that the model has."""
        letters = "".join(sorted(symbol for symbol in self._vocabulary if len(symbol) == 1 and symbol.isalpha()))
        voice, language = next(iter(self.model.card.voices)), self.model.card.languages[0]
        return SpeechRequest(text=letters[:8], voice=voice, language=language)

    def _ids(self, piece: Piece) -> tuple[int, ...]:
        ids = [self._vocabulary[symbol] for symbol in piece.symbols]
        if not self._blanks:
            return tuple(ids)
        spaced = [0] * (2 * len(ids) + 1)
        spaced[1::2] = ids
        return tuple(spaced)

    def _joined(self, utterance: Utterance, sounds: Sequence[Sound]) -> Speech:
        spoken = [
            SpokenPiece(sound.samples, sound.words(piece.words, self._blanks), piece.pause_s)
            for piece, sound in zip(utterance.pieces, sounds, strict=True)
        ]
        return join(spoken, self._passes.rate_hz)

    def _check_voices(self, speakers: int) -> None:
        for name, voice in self.model.card.voices.items():
            speaker = voice.options.get("speaker_id")
            known = speaker is None if speakers == 1 else isinstance(speaker, int) and 0 <= speaker < speakers
            if not known:
                fix = "leave it out" if speakers == 1 else f"use 0 to {speakers - 1}"
                field = f"{self.model.name}/model.yaml:voices.{name}.options.speaker_id"
                raise BadInput(f"the network has {speakers} speakers, not {speaker!r}", field=field, fix=fix)


def _vocabulary(folder: Path) -> tuple[dict[str, int], Mapping[str, Any]]:
    """Characters with their ids, and the tokenizer's settings."""
    symbols = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {str(settings.get("unk_token")), "<unk>", "<pad>"}
    return {str(symbol): int(index) for symbol, index in symbols.items() if symbol not in special}, settings
