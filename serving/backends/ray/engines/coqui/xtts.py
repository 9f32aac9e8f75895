"""XttsEngine: XTTS voices, cloned from a sample or chosen by name, by coqui-tts; made by coqui_engine.

The one invariant: a voice is made of its sample alone and held within a bound; a sentence's tokens come from the
request's seed and its place in the text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.coqui.cast import Cast
from serving.backends.ray.engines.coqui.files import coqui, fill, read_pickle, read_state
from serving.backends.ray.engines.coqui.sentences import Sentence, sentences
from serving.backends.ray.engines.network.checkpoint import quiet, reading
from serving.backends.ray.engines.network.decoding import Watch
from serving.backends.ray.engines.network.engine import NetworkEngine, Written
from serving.backends.ray.engines.network.inputs import check_tokens, read_sound
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.voices.choice import check_language, choose
from serving.backends.ray.engines.voices.spoken import Speech, SpokenPiece, check_finite, join, write_speech
from serving.errors import BadInput
from serving.protocol.tasks import SpeechRequest

if TYPE_CHECKING:
    import torch

SAMPLE_RATE_HZ: Final = 22_050
_LEAST_SAMPLE_S: Final = 1.0
_MOST_SAMPLE_S: Final = 60.0
_SPEAKERS_FILE: Final = "speakers_xtts.pth"
_VOICES_HELD: Final = 32
"""Of about 0.2 MiB each."""
_TOKENS_A_CHAR: Final = 1.5
"""Sound tokens for a character of text: 21.5 a second, 15 characters a second; for progress alone."""
_SILENCE: Final = 1e-4
_UNUSED: Final = ("torch_mel_spectrogram_style_encoder", "torch_mel_spectrogram_dvae", "dvae")
"""Parts of checkpoints that only training needs."""


class Conditioning(NamedTuple):
    """What the network knows of a voice: latents of the GPT, an embedding for the decoder; tensors."""

    latents: "torch.Tensor"
    embedding: "torch.Tensor"


@dataclass(frozen=True, slots=True)
class Script:
    """A request as the network takes it; ``sample`` is float32 ``(samples,)`` at 22,050 Hz for voices to be cloned."""

    sentences: tuple[Sentence, ...]
    language: str
    speed: float
    seed: int
    voice: tuple[str, str]
    sample: NDArray[np.float32] | None


class XttsEngine(NetworkEngine[SpeechRequest, Script, Speech]):
    """Serves ``speech``.

    A voice's options name its ``speaker`` (of ``speakers_xtts.pth``) or its ``sample`` (a file in the weights' or the
    model's folder). The model's options: ``voices_held``, ``temperature``, ``top_k``, ``top_p``,
    ``repetition_penalty``; without them the checkpoint's own.
    """

    request_type = SpeechRequest
    lower = ("text",)
    precisions: ClassVar[Sequence[str]] = ("fp32",)

    def load(self) -> None:
        """Load tokenizer and network; see the base."""
        folder, name = self.weights.folder, self.model.name
        self._speakers_read: Mapping[str, Mapping[str, torch.Tensor]] | None = None
        module = coqui("tts.models.xtts")
        self._config = reading(name, lambda: _configuration(folder), folder)
        tokenizer = reading(
            name, lambda: coqui("tts.layers.xtts.tokenizer").VoiceBpeTokenizer(folder / "vocab.json"), folder
        )
        arguments = self._config.model_args
        arguments.gpt_number_text_tokens = tokenizer.get_number_tokens()
        arguments.gpt_start_text_token = tokenizer.tokenizer.token_to_id("[START]")
        arguments.gpt_stop_text_token = tokenizer.tokenizer.token_to_id("[STOP]")
        with quiet():
            network = reading(name, lambda: module.Xtts(self._config), folder)
            network.tokenizer = tokenizer
            state = _state(read_state(self.model, folder))
            if any(key.startswith(("gpt.gpt_inference.", "gpt.gpt.wte.")) for key in state):
                network.gpt.init_gpt_for_inference(kv_cache=arguments.kv_cache)
            fill(network, state, field=f"{name}: {folder.name}")
            network.eval()  # prepares the GPT for inference, too
        self._network = network.to(self.placement.device)
        self._most_tokens = int(arguments.gpt_max_text_tokens) - 1
        self._rate_hz = int(arguments.output_sample_rate)
        self._cast: Cast[Conditioning] = Cast(int(str(self.model.card.options.get("voices_held", _VOICES_HELD))))
        self._check_voices()

    def check(self, request: SpeechRequest) -> None:
        """A known language, and a voice: a sample's, or one by name."""
        language = check_language(self.model, request.language).partition("-")[0]
        if language not in self._network.tokenizer.char_limits:
            fix = f"correct {self.model.name}/model.yaml:languages"
            raise BadInput(f"XTTS does not speak {language!r}", field="language", fix=fix)
        if request.sample is None:
            choose(self.model, request)

    def prepare(self, request: SpeechRequest, files: Mapping[str, Path]) -> Script:
        """Split and count the text, read the sample; see the base."""
        language = check_language(self.model, request.language).partition("-")[0]
        parts = sentences(request.text, self._network.tokenizer.char_limits[language])
        for part in parts:
            self._check_tokens(part.text, language)
        sample, voice = None, ("voice", request.voice)
        if request.sample is not None:
            sample, voice = self._sample(files["sample"], "sample"), ("sample", request.sample.sha256)
        return Script(tuple(parts), language, request.speed, request.seed, voice, sample)

    def generate(self, batch: Sequence[Script], steps: Steps) -> Sequence[Speech]:
        """Make the voice, if it is not held, and speak sentence by sentence."""
        return [self._spoken(script, steps) for script in batch]

    def write(self, request: SpeechRequest, output: Speech, folder: Path) -> Written:
        """Mono 16-bit WAV; XTTS does not tell when words are spoken."""
        return write_speech(output, folder)

    def unload(self) -> None:
        """Let go of the network and the voices."""
        del self._network, self._cast

    def smallest(self) -> SpeechRequest | None:
        """A short word by the first voice; None where voices come with requests alone."""
        voices = self.model.card.voices
        if not voices:
            return None
        return SpeechRequest(text="a", voice=next(iter(voices)), language=self.model.card.languages[0])

    def _spoken(self, script: Script, steps: Steps) -> Speech:
        voice = self._cast.get(script.voice, lambda: self._conditioning(script))
        expected = [round(_TOKENS_A_CHAR * len(part.text)) + 1 for part in script.sentences]
        pieces, done = [], 0
        for index, part in enumerate(script.sentences):
            rest = sum(expected[index + 1 :])

            def told(tokens: int, before: int = done, own: int = expected[index], rest: int = rest) -> None:
                steps(before + tokens, before + max(tokens, own) + rest)

            samples, tokens = self._sentence(script, index, voice, told)
            done += tokens
            pieces.append(SpokenPiece(check_finite(samples, self.model.name), (), part.pause_s))
        steps(done, done)
        return join(pieces, self._rate_hz)

    def _sentence(
        self, script: Script, index: int, voice: Conditioning, told: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], int]:
        """Samples of a sentence, and how many tokens they took."""
        watch = Watch(self.model.name, told)
        with seeded(int(np.random.SeedSequence([script.seed, index]).generate_state(1)[0]), lambda: told(0)):
            spoken = self._network.inference(
                script.sentences[index].text,
                script.language,
                voice.latents,
                voice.embedding,
                speed=script.speed,
                logits_processor=[watch],
                **self._sampling(),
            )
        return np.atleast_1d(np.asarray(spoken["wav"], np.float32)), watch.done

    def _sampling(self) -> dict[str, float]:
        names = ("temperature", "length_penalty", "repetition_penalty", "top_k", "top_p")
        own = {name: getattr(self._config, name) for name in names}
        return own | {name: value for name, value in self.model.card.options.items() if name in own}

    def _conditioning(self, script: Script) -> Conditioning:
        sample = script.sample
        if sample is None:
            options = self.model.card.voices[script.voice[1]].options
            if "speaker" in options:
                return self._speaker(str(options["speaker"]))
            sample = self._sample(self._file(str(options["sample"])), "voice")
        import torch

        sound, config = torch.from_numpy(sample).unsqueeze(0), self._config
        heard = sound[:, : SAMPLE_RATE_HZ * int(config.max_ref_len)].to(self.placement.device)
        latents = self._network.get_gpt_cond_latents(
            heard, SAMPLE_RATE_HZ, length=config.gpt_cond_len, chunk_length=config.gpt_cond_chunk_len
        )
        return Conditioning(latents, self._network.get_speaker_embedding(heard, SAMPLE_RATE_HZ))

    def _speaker(self, speaker: str) -> Conditioning:
        held = self._speakers()[speaker]
        return Conditioning(held["gpt_cond_latent"], held["speaker_embedding"])

    def _speakers(self) -> Mapping[str, "Mapping[str, torch.Tensor]"]:
        """By name, as the file has them; read once, a few megabytes."""
        if self._speakers_read is None:
            path = self.weights.folder / _SPEAKERS_FILE
            held = read_pickle(self.model, path) if path.is_file() else {}
            self._speakers_read = held if isinstance(held, Mapping) else {}
        return self._speakers_read

    def _file(self, sample: str) -> Path:
        """A voice's sample: in the weights' folder or in the model's, never outside."""
        folders = [folder.resolve() for folder in (self.weights.folder, self.model.folder)]
        found = [folder / sample for folder in folders if (folder / sample).resolve().is_relative_to(folder)]
        return next((path for path in found if path.is_file()), self.weights.folder / Path(sample).name)

    def _sample(self, path: Path, field: str) -> NDArray[np.float32]:
        sample = read_sound(path, field, SAMPLE_RATE_HZ, least_s=_LEAST_SAMPLE_S, most_s=_MOST_SAMPLE_S)
        if float(np.abs(sample).max()) < _SILENCE:
            raise BadInput("the sample is silent", field=field, fix="give 6 to 30 s of clear speech")
        return sample

    def _check_tokens(self, text: str, language: str) -> None:
        tokenizer = self._network.tokenizer
        ids = tokenizer.encode(text.strip().lower(), lang=language)
        check_tokens(len(ids), self._most_tokens, "text")
        unknown = tokenizer.tokenizer.token_to_id("[UNK]")
        if unknown is not None and unknown in ids:
            odd = [char for char in dict.fromkeys(text.lower()) if unknown in tokenizer.tokenizer.encode(char).ids]
            named = ", ".join(repr(char) for char in odd[:5] if not char.isspace()) or "a character"
            raise BadInput(f"the model has no token for {named}", field="text", fix=f"write it in {language!r}")

    def _check_voices(self) -> None:
        """Every voice of the card can be made: before any request asks for it."""
        known: Mapping[str, Mapping[str, torch.Tensor]] | None = None
        for name, voice in self.model.card.voices.items():
            field = f"{self.model.name}/model.yaml:voices.{name}.options"
            if "speaker" in voice.options:
                known = self._speakers() if known is None else known
                if voice.options["speaker"] not in known:
                    fix = f"use one of {', '.join(sorted(known))[:256]}" if known else f"add {_SPEAKERS_FILE}"
                    raise BadInput(f"there is no speaker {voice.options['speaker']!r}", field=field, fix=fix)
            elif not self._file(str(voice.options.get("sample", ""))).is_file():
                raise BadInput("the voice has no speaker and no sample", field=field, fix="name one of them")


def _configuration(folder: Path) -> Any:  # noqa: ANN401  Coqui's class
    config = coqui("tts.configs.xtts_config").XttsConfig()
    config.load_json(str(folder / "config.json"))
    return config


def _state(held: Mapping[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Keys as the network has them: training writes ``xtts.`` before each, and parts that only it needs."""
    plain = {key.removeprefix("xtts."): value for key, value in held.items()}
    return {key: value for key, value in plain.items() if key.split(".")[0] not in _UNUSED}
