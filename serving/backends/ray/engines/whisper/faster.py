"""FasterWhisperEngine: Whisper by faster-whisper and CTranslate2, in int8 or floats; task transcription.

The one invariant: everything is read from the held folder; faster-whisper would fetch what is missing there.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from serving.backends.ray.engines.network.checkpoint import reading
from serving.backends.ray.engines.network.engine import needs
from serving.backends.ray.engines.whisper.engine import Heard, Tick, WhisperEngine
from serving.backends.ray.engines.whisper.languages import WHISPER_LANGUAGES
from serving.backends.ray.engines.whisper.windows import RATE_HZ
from serving.backends.ray.engines.whisper.words import joined, read_tokenizer
from serving.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel
    from numpy.typing import NDArray

_FILES: Final = ("model.bin", "config.json")
_COMPUTE: Final = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_SAMPLES: Final = 30 * RATE_HZ
_FRAMES_PER_S: Final = 100
_LOOK_S: Final = 0.1
"""How often it is asked whether somebody still waits."""

T = TypeVar("T")


class FasterWhisperEngine(WhisperEngine["StorageView"]):
    """CTranslate2's Whisper; ``int8`` weights compute in fp32 on a CPU and in fp16 on a GPU.

    Raises:
        BadInput: files are missing or damaged, or the precision is not supported by the device.
        MissingDependency: faster-whisper is not installed.
    """

    precisions = ("fp32", "fp16", "bf16", "int8")
    uses_torch: ClassVar[bool] = False

    def load(self) -> None:
        """Read the model to the device, and the tokenizer."""
        faster_whisper = needs(lambda: __import__("faster_whisper"), "faster-whisper")
        folder = self.weights.folder
        _check_files(folder, self.model.name)
        read_tokenizer(folder, self.model.name)
        device, _, index = self.placement.device.partition(":")
        whole = "float32" if device == "cpu" else "float16"
        compute = _COMPUTE.get(self.placement.precision, f"int8_{whole}")

        def read() -> "WhisperModel":
            return faster_whisper.WhisperModel(
                str(folder), device, int(index or 0), compute, cpu_threads=self.threads, local_files_only=True
            )

        self.network = reading(self.model.name, read, folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ctranslate2-{self.model.name}")
        heard, wanted = len(self.network.feature_extractor.mel_filters), self.network.model.n_mels
        if heard != wanted:
            fix = "copy preprocessor_config.json of the original model beside it"
            problem = f"the network hears {wanted} mel bands, and {heard} are made for it"
            raise BadInput(problem, field=f"{self.model.name}: {folder.name}", fix=fix)
        known = [code for code in WHISPER_LANGUAGES if self.network.hf_tokenizer.token_to_id(f"<|{code}|>") is not None]
        self.languages = known if self.network.model.is_multilingual else ["en"]

    def encode(self, sounds: "Sequence[NDArray[np.float32]]", tick: Tick) -> "StorageView":
        """Log-mel features of 30 s each, through the encoder; silence is added to the sound, as in training."""
        import numpy as np

        full = [np.pad(sound, (0, _SAMPLES - len(sound))) for sound in sounds]
        features = np.stack([self.network.feature_extractor(sound, padding=0) for sound in full])
        return self._watched(lambda: self.network.encode(features), tick)

    def detect(self, encoded: "StorageView", tick: Tick) -> tuple[str, float]:
        """By the first decoded token."""
        if not self.network.model.is_multilingual:
            return "en", 1.0
        found = self._watched(lambda: self.network.model.detect_language(encoded)[0], tick)
        token, probability = found[0]
        whole = math.isclose(sum(each for _, each in found), 1, abs_tol=0.01)  # not where the network is broken
        return token[2:-2], float(probability) if whole else math.nan

    def decode(
        self, encoded: "StorageView", seconds: Sequence[float], language: str, tick: Tick, forbid_repeats: int = 0
    ) -> Sequence[Heard]:
        """One call decodes all, another finds the times."""
        from faster_whisper.tokenizer import Tokenizer

        multilingual = self.network.model.is_multilingual
        tokenizer = Tokenizer(self.network.hf_tokenizer, multilingual, task="transcribe", language=language)
        prompt = tokenizer.sot_sequence
        work = partial(
            self.network.model.generate, encoded, [prompt] * len(seconds),
            beam_size=self.beams, no_repeat_ngram_size=forbid_repeats,
            max_length=2 * self.tokens,  # CTranslate2 decodes half of it at most
            suppress_tokens=[-1],  # those of config.json
            return_scores=True, return_no_speech_prob=True,
        )  # fmt: skip
        results = self._watched(work, tick)
        ids = [result.sequences_ids[0] for result in results]
        texts = [[token for token in some if token < tokenizer.eot] for some in ids]
        frames = [max(2, round(length * _FRAMES_PER_S)) for length in seconds]
        found = self._watched(lambda: self.network.find_alignment(tokenizer, texts, encoded, frames), tick)
        return [
            # a score is the mean over the tokens without the last one, which Whisper's bounds count too
            Heard(joined(words), float(result.scores[0]) * len(some) / (len(some) + 1), float(result.no_speech_prob))
            for words, result, some in zip(found, results, ids, strict=True)
        ]

    def _watched(self, work: Callable[[], T], tick: Tick) -> T:
        """Run a call of CTranslate2's, which cannot be looked into, in a thread of its own, and look round meanwhile.

        One that nobody waits for any more goes on to its end there, and the next one waits for it.
        """
        tick(0)
        future = self._thread.submit(work)
        while not wait([future], _LOOK_S).done:
            tick(0)
        return future.result()

    def unload(self) -> None:
        """Free the device."""
        self._thread.shutdown()
        self.network.model.unload_model()
        self.network = None


def _check_files(folder: Path, name: str) -> None:
    missing = [file for file in _FILES if not (folder / file).is_file()]
    if missing:
        fix = "convert with ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
        raise BadInput(f"{', '.join(missing)} not found", field=f"{name}: {folder.name}", fix=fix)
