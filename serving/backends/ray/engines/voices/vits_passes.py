"""The passes of a VITS network over a few sentences: symbols, durations, flow, sound; used by VitsEngine.

transformers' own forward draws the noise of a whole batch from one generator and decodes shorter rows with their
padding; here each row has its own noise and ends by itself. The one invariant: a row's sound depends on its own line
alone, but for rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.engines.voices.spelling import SpelledWord
from serving.backends.ray.engines.voices.spoken import check_finite
from serving.errors import EngineFailed
from serving.protocol.tasks import Word

if TYPE_CHECKING:
    import torch
    from transformers import VitsConfig, VitsModel
    from transformers.models.vits.modeling_vits import VitsStochasticDurationPredictor, VitsTextEncoderOutput

STEPS_A_GROUP: Final = 4
_WINDOW_FRAMES: Final = 128
"""Frames that are decoded at once: two seconds of sound at 16 kHz."""
_MOST_S: Final = 120.0
"""Longest sound of a line; a network that wants more for 500 characters has broken durations."""

_FIX: Final = "check the weights; with fp16 try bf16 or fp32"


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence for the network.

    Args:
        ids: of its symbols, blanks between them.
        speaker: of a network with several.
        speed: factor on the normal pace.
        seed: the request's, and the sentence's place in its text.
    """

    ids: tuple[int, ...]
    speaker: int | None
    speed: float
    seed: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sound:
    """What became of a line: float32 ``(samples,)``, and seconds at which each of its ids ends."""

    samples: NDArray[np.float32]
    ends_s: NDArray[np.float64]

    def words(self, words: Sequence[SpelledWord], blanks: bool) -> tuple[Word, ...]:
        """Words with their times; a blank before a symbol belongs to it."""
        ends = self.ends_s[1::2] if blanks else self.ends_s
        starts = np.concatenate([[0.0], ends[:-1]])
        return tuple(
            Word(text=word.text, start_s=float(starts[word.first]), end_s=float(ends[word.last - 1])) for word in words
        )


def groups(lengths: Sequence[int], most: int, symbols: int) -> list[list[int]]:
    """Indexes of lines that go together: of like length, at most ``most``, and ``symbols`` with their padding."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        last = found[-1] if found else []
        if last and len(last) < most and lengths[index] * (len(last) + 1) <= symbols:
            last.append(index)
        else:
            found.append([index])
    return found


class Passes:
    """Runs a ``VitsModel``.

    Args:
        network: in evaluation mode, on its device.
        name: of the model, for errors.
    """

    def __init__(self, network: "VitsModel", name: str) -> None:
        self._network, self._name = network, name
        self._config = network.config
        self.rate_hz = int(self._config.sampling_rate)
        self._hop = int(np.prod(self._config.upsample_rates))
        self._edge = edge_frames(self._config)
        network.duration_predictor.float()  # its splines have no solutions in half precision

    def run(self, lines: Sequence[Line], step: Callable[[], None], look: Callable[[], None]) -> list[Sound]:
        """Speak the lines together.

        Args:
            lines: at least one.
            step: called after each of :data:`STEPS_A_GROUP` parts; may raise.
            look: called more often, within the longest part; may raise.

        Raises:
            EngineFailed: durations or samples that are no numbers, or a sound without end.
        """
        network = self._network
        ids, mask = self._padded(lines)
        voice = self._voice(lines)
        encoded = network.text_encoder(input_ids=ids, padding_mask=mask.unsqueeze(-1), attention_mask=mask)
        self._check_encoded(encoded.last_hidden_state)
        step()
        durations = self._durations(encoded.last_hidden_state.transpose(1, 2), mask.unsqueeze(1), voice, lines)
        step()
        latents, frames_mask = self._latents(encoded, durations, lines)
        latents = network.flow(latents, frames_mask, voice, reverse=True) * frames_mask
        step()
        sounds = []
        for row, spent in enumerate(durations):
            own = None if voice is None else voice[row : row + 1]
            wave = self._decoded(latents[row : row + 1, :, : int(spent.sum())], own, look)
            sounds.append(self._sound(wave, spent))
        step()
        return sounds

    def _check_encoded(self, hidden: "torch.Tensor") -> None:
        """Durations would raise an error of their own that prints them all."""
        if not bool(hidden.isfinite().all()):
            raise EngineFailed(f"{self._name}: the text encoder made values that are no numbers", fix=_FIX)

    def _padded(self, lines: Sequence[Line]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Ids (rows, longest) and a mask of the network's own type."""
        import torch

        longest = max(len(line.ids) for line in lines)
        ids = torch.zeros(len(lines), longest, dtype=torch.long)
        mask = torch.zeros(len(lines), longest)
        for row, line in enumerate(lines):
            ids[row, : len(line.ids)] = torch.tensor(line.ids)
            mask[row, : len(line.ids)] = 1
        return ids.to(self._network.device), mask.to(self._network.device, self._network.dtype)

    def _voice(self, lines: Sequence[Line]) -> "torch.Tensor | None":
        import torch

        if self._config.num_speakers <= 1:
            return None
        speakers = torch.tensor([line.speaker or 0 for line in lines], device=self._network.device)
        embedded: torch.Tensor = self._network.embed_speaker(speakers).unsqueeze(-1)
        return embedded

    def _durations(
        self,
        hidden: "torch.Tensor",
        mask: "torch.Tensor",
        voice: "torch.Tensor | None",
        lines: Sequence[Line],
    ) -> list["torch.Tensor"]:
        """Frames of every id of every row, int64 on the CPU."""
        import torch

        predictor = self._network.duration_predictor
        states, mask, own = hidden.float(), mask.float(), None if voice is None else voice.float()
        if self._config.use_stochastic_duration_prediction:
            logs = _sampled(predictor, states, mask, own, self._noise(lines, hidden.shape[2]))
        else:
            logs = predictor(states, mask, own)
        found = []
        for row, line in enumerate(lines):
            own_logs = logs[row, 0, : len(line.ids)].cpu()
            spent = torch.ceil(torch.exp(own_logs) / (self._network.speaking_rate * line.speed))
            if not bool(torch.isfinite(spent).all()) or float(spent.sum()) * self._hop > _MOST_S * self.rate_hz:
                raise EngineFailed(f"{self._name}: a sentence of {len(line.ids)} symbols would never end", fix=_FIX)
            spent = spent.long()
            spent[-1] += int(spent.sum()) == 0
            found.append(spent)
        return found

    def _noise(self, lines: Sequence[Line], longest: int) -> "torch.Tensor":
        """Of the durations (rows, 2, longest): each row's from its own seed, as long as the row."""
        import torch

        noise = torch.zeros(len(lines), 2, longest)
        for row, line in enumerate(lines):
            length = len(line.ids)
            noise[row, :, :length] = torch.randn(2, length, generator=generator(_noise_seed(line)))
        return noise.to(self._network.device) * float(self._network.noise_scale_duration)

    def _latents(
        self,
        encoded: "VitsTextEncoderOutput",
        durations: Sequence["torch.Tensor"],
        lines: Sequence[Line],
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Prior latents (rows, channels, frames) with each row's noise, and the mask of its frames."""
        import torch

        network = self._network
        lengths = [int(spent.sum()) for spent in durations]
        channels = encoded.prior_means.shape[-1]
        shape = (len(lines), channels, max(lengths))
        latents = torch.zeros(shape, device=network.device, dtype=network.dtype)
        mask = torch.zeros(shape[0], 1, shape[2], device=network.device, dtype=network.dtype)
        for row, (spent, line) in enumerate(zip(durations, lines, strict=True)):
            length = lengths[row]
            symbol = torch.repeat_interleave(torch.arange(len(line.ids)), spent).to(network.device)
            means, logs = encoded.prior_means[row, symbol], encoded.prior_log_variances[row, symbol]
            noise = torch.randn(length, channels, generator=generator(_noise_seed(line) ^ 1)).to(means)
            latents[row, :, :length] = (means + noise * torch.exp(logs) * network.noise_scale).T
            mask[row, :, :length] = 1
        return latents, mask

    def _decoded(
        self, latents: "torch.Tensor", voice: "torch.Tensor | None", look: Callable[[], None]
    ) -> NDArray[np.float32]:
        """Sound (samples,) of one row, as long as it is: another row's padding would be heard at its end.

        Window by window: the memory it takes does not grow with the text.
        """
        waves = []
        for start in range(0, latents.shape[2], _WINDOW_FRAMES):
            before = min(start, self._edge)
            window = latents[:, :, start - before : start + _WINDOW_FRAMES + self._edge]
            wave = self._network.decoder(window, voice).float().flatten().cpu().numpy()
            waves.append(wave[before * self._hop : (before + _WINDOW_FRAMES) * self._hop])
            look()
        return np.concatenate(waves)

    def _sound(self, wave: NDArray[np.float32], spent: "torch.Tensor") -> Sound:
        ends_s = np.cumsum(spent.numpy(), dtype=np.float64) * self._hop / self.rate_hz
        return Sound(check_finite(wave, self._name), ends_s)


def _sampled(
    predictor: "VitsStochasticDurationPredictor",
    states: "torch.Tensor",
    mask: "torch.Tensor",
    voice: "torch.Tensor | None",
    noise: "torch.Tensor",
) -> "torch.Tensor":
    """The stochastic duration predictor's reverse pass with noise that is given, where its own is drawn inside."""
    import torch

    inputs = predictor.conv_pre(states)
    if voice is not None:
        inputs = inputs + predictor.cond(voice)
    inputs = predictor.conv_proj(predictor.conv_dds(inputs, mask)) * mask
    flows = list(reversed(predictor.flows))
    for flow in [*flows[:-2], flows[-1]]:  # the one before the last is of no use, says the library
        noise, _ = flow(torch.flip(noise, [1]), mask, global_conditioning=inputs, reverse=True)
    return noise[:, :1]


def edge_frames(config: "VitsConfig") -> int:
    """Frames on each side that a sample of the decoder hears: what windows overlap by."""
    reach, rate = 3.0, 1
    for factor, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        reach += kernel / factor / rate
        rate *= factor
        blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        reach += max((size - 1) / 2 * (sum(dilations) + len(dilations)) for size, dilations in blocks) / rate
    return int(reach + 3 / rate) + 1


def _noise_seed(line: Line) -> int:
    return int(np.random.SeedSequence(line.seed).generate_state(1)[0])
