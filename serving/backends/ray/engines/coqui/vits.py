"""CoquiVitsEngine: VITS voices of Coqui's model zoo and trainer, by coqui-tts; made by coqui_engine.

The one invariant: all noise of a sentence comes from its request's seed and its place in the text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from serving.backends.ray.engines.coqui.files import coqui, fill, read_state, without_spectrograms
from serving.backends.ray.engines.coqui.phonemes import phonemize
from serving.backends.ray.engines.network.checkpoint import reading
from serving.backends.ray.engines.network.engine import NetworkEngine, Written
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.voices.choice import check_language, choose
from serving.backends.ray.engines.voices.spelling import Piece, spell
from serving.backends.ray.engines.voices.spoken import Speech, SpokenPiece, check_finite, join, write_speech
from serving.backends.ray.engines.voices.vits_passes import Sound
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import SpeechRequest

if TYPE_CHECKING:
    import torch

_PARTS: Final = ("text_encoder", "duration_predictor", "flow", "waveform_decoder")
"""Of the network, in the order they run; each is a step."""
_UNUSED: Final = ("disc.", "speaker_encoder.")
"""Parts of checkpoints that only training needs."""
_SPEAKERS: Final = "speaker_ids.json"
_PHONEMES_CLASS: Final = "TTS.tts.utils.text.characters.IPAPhonemes"
_LETTERS_CLASS: Final = "TTS.tts.utils.text.characters.Graphemes"
_MOST_S: Final = 120.0
"""Longest sound of a sentence; a network that wants more for 500 characters has broken durations."""

_FIX: Final = "check the weights"


@dataclass(frozen=True, slots=True)
class Line:
    """A request as the network takes it: its sentences, the speaker's number, pace and seed."""

    pieces: tuple[Piece, ...]
    speaker: int | None
    speed: float
    seed: int


class CoquiVitsEngine(NetworkEngine[SpeechRequest, Line, Speech]):
    """Serves ``speech``; a voice's option ``speaker`` is a name of ``speaker_ids.json``."""

    request_type = SpeechRequest
    lower = ("text",)
    precisions: ClassVar[Sequence[str]] = ("fp32",)

    def load(self) -> None:
        """Load tokenizer, speakers and network; see the base."""
        folder, name = self.weights.folder, self.model.name
        config, self._phonemes = reading(name, lambda: _configuration(folder), folder)
        self._phoneme_language = str(config.phoneme_language or "en-us")
        network = reading(name, lambda: coqui("tts.models.vits").Vits(config), folder)
        tokenizer, speakers = network.tokenizer, network.speaker_manager
        characters = tokenizer.characters
        single = [symbol for symbol in characters.vocab if len(symbol) == 1]  # the others are marks of its own
        self._symbols: dict[str, int] = {symbol: int(characters.char_to_id(symbol)) for symbol in single}
        self._blank = int(characters.blank_id if characters.blank else characters.pad_id)
        self._blanks = bool(tokenizer.add_blank)
        state = {key: value for key, value in read_state(self.model, folder).items() if not key.startswith(_UNUSED)}
        fill(network, state, field=f"{name}: {folder.name}")
        self._network = network.eval().to(self.placement.device)
        self._known = dict(speakers.name_to_id) if speakers is not None else {}
        self._rate_hz, self._hop = int(config.audio.sample_rate), int(config.audio.hop_length)
        self._pace = float(network.length_scale)
        self._check_voices()
        self._step: Callable[[], None] = lambda: None
        network.text_encoder.register_forward_hook(self._check_encoded)
        network.duration_predictor.register_forward_hook(self._check_durations)
        for part in _PARTS:
            getattr(network, part).register_forward_hook(lambda *_: self._step())

    def check(self, request: SpeechRequest) -> None:
        """A known voice in a known language."""
        choose(self.model, request)
        if request.sample is not None:
            raise BadInput("VITS clones no voices", field="sample", fix="leave it out, or use a model of XTTS")

    def prepare(self, request: SpeechRequest, files: Mapping[str, Path]) -> Line:
        """Write the text in the network's symbols; see the base."""
        speaker = choose(self.model, request).options.get("speaker")
        check_language(self.model, request.language)
        if self._phonemes:
            pieces = phonemize(request.text, self._phoneme_language, self._symbols)
        else:
            pieces = spell(request.text, self._symbols)
        number = None if speaker is None else int(self._known[str(speaker)])
        return Line(tuple(pieces), number, request.speed, request.seed)

    def generate(self, batch: Sequence[Line], steps: Steps) -> Sequence[Speech]:
        """Speak sentence by sentence."""
        return [self._spoken(line, steps) for line in batch]

    def write(self, request: SpeechRequest, output: Speech, folder: Path) -> Written:
        """Mono 16-bit WAV with the times of its words."""
        return write_speech(output, folder)

    def recover(self) -> None:
        """Nobody listens to steps between requests."""
        self._step = lambda: None

    def unload(self) -> None:
        """Let go of the network."""
        del self._network

    def smallest(self) -> SpeechRequest:
        """One word by the first voice."""
        voice, language = next(iter(self.model.card.voices)), self.model.card.languages[0]
        return SpeechRequest(text="a", voice=voice, language=language)

    def _spoken(self, line: Line, steps: Steps) -> Speech:
        done, total = 0, len(_PARTS) * len(line.pieces)

        def step() -> None:
            nonlocal done
            done += 1
            steps(done, total)

        self._step = step
        pieces = [self._sentence(line, index, lambda: steps(done, total)) for index in range(len(line.pieces))]
        self.recover()
        return join(pieces, self._rate_hz)

    def _sentence(self, line: Line, index: int, alive: Callable[[], None]) -> SpokenPiece:
        import torch

        piece, device = line.pieces[index], self._network.device
        self._network.length_scale = self._pace / line.speed
        speakers = None if line.speaker is None else torch.tensor([line.speaker], device=device)
        ids = torch.tensor([self._ids(piece)], device=device)
        with seeded(int(np.random.SeedSequence([line.seed, index]).generate_state(1)[0]), alive):
            made = self._network.inference(
                ids,
                {
                    "x_lengths": torch.tensor([ids.shape[1]], device=device),
                    "speaker_ids": speakers,
                    "d_vectors": None,
                    "language_ids": None,
                    "durations": None,
                },
            )
        samples = made["model_outputs"].float().flatten().cpu().numpy()
        ends_s = (
            np.cumsum(made["durations"].float().flatten().cpu().numpy(), dtype=np.float64) * self._hop / self._rate_hz
        )
        sound = Sound(check_finite(samples, self.model.name), ends_s)
        return SpokenPiece(sound.samples, sound.words(piece.words, self._blanks), piece.pause_s)

    def _ids(self, piece: Piece) -> list[int]:
        ids = [self._symbols[symbol] for symbol in piece.symbols]
        if not self._blanks:
            return ids
        spaced = [self._blank] * (2 * len(ids) + 1)
        spaced[1::2] = ids
        return spaced

    def _check_encoded(self, _part: object, _given: object, encoded: "tuple[torch.Tensor, ...]") -> None:
        """Durations would only say that something was not asserted."""
        if not bool(encoded[0].isfinite().all()):
            raise EngineFailed(f"{self.model.name}: the text encoder made values that are no numbers", fix=_FIX)

    def _check_durations(self, _part: object, _given: object, logs: "torch.Tensor") -> None:
        """Before any memory is taken for them."""
        frames = float(logs.float().exp().sum()) * self._network.length_scale
        if not frames * self._hop <= _MOST_S * self._rate_hz:  # nor a number
            raise EngineFailed(f"{self.model.name}: a sentence would never end", fix=_FIX)

    def _check_voices(self) -> None:
        for name, voice in self.model.card.voices.items():
            speaker = voice.options.get("speaker")
            if (str(speaker) not in self._known) if self._known else speaker is not None:
                field = f"{self.model.name}/model.yaml:voices.{name}.options.speaker"
                fix = f"use one of {', '.join(sorted(self._known))[:256]}" if self._known else "leave it out"
                raise BadInput(f"there is no speaker {speaker!r}", field=field, fix=fix)


def _configuration(folder: Path) -> tuple[Any, bool]:
    """Settings of a network that only speaks, whatever training kept beside them, and whether it reads phonemes."""
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if told.get("model") != "vits":
        raise ValueError(f"config.json is of the network {told.get('model')!r}")
    config = coqui("tts.configs.vits_config").VitsConfig()
    config.load_json(str(folder / "config.json"))
    arguments = config.model_args
    if arguments.use_d_vector_file or arguments.use_language_embedding:
        raise ValueError("config.json wants speaker vectors or several languages in one network")
    arguments.init_discriminator = arguments.use_speaker_encoder_as_loss = False
    arguments.speaker_encoder_model_path = ""
    if arguments.use_speaker_embedding:  # the path is of the machine that trained it
        arguments.speakers_file = str(folder / _SPEAKERS)
        config.speakers_file, config.speakers = arguments.speakers_file, None
    phonemes = bool(config.use_phonemes)
    config.use_phonemes = False  # else the tokenizer looks for the program espeak-ng
    if config.characters is not None:
        named = config.characters.characters_class or (_PHONEMES_CLASS if phonemes else _LETTERS_CLASS)
        if not named.startswith("TTS."):  # a name that would be imported
            raise ValueError(f"config.json names {named!r} for its characters")
        config.characters.characters_class = named
    return without_spectrograms(config), phonemes
