"""Sampling of MusicGen's tokens with a generator for each request; used by MusicgenEngine.

transformers draws a whole batch from the process's one generator, so that a request would sound otherwise in company.
The one invariant: a request's tokens come from its own seed, whatever shares its batch, but for rounding.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.network.seeds import generator
from serving.errors import EngineFailed

if TYPE_CHECKING:
    import torch

_NEVER: Final = -1e4
"""Score of tokens that were not drawn: finite, since guidance takes differences of it, and in reach of fp16."""


class Sampling:
    """A logits processor: draws a token for each codebook and leaves it alone with a score above all others.

    It goes in with ``do_sample=False``. Guidance, which transformers applies after it, finds both halves of the
    scores equal and changes nothing.

    Args:
        seeds: of the batch's requests.
        guidance: factor; up to 1 there is no unconditional half.
        top_k: tokens that may be drawn.
        temperature: above 0.
        model: its name, for errors.
        tick: told how many tokens each codebook has; may raise to stop.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        guidance: float,
        top_k: int,
        temperature: float,
        model: str,
        tick: Callable[[int], None],
    ) -> None:
        self._generators = [generator(seed) for seed in seeds]
        self._guidance, self._top_k, self._temperature = guidance, top_k, temperature
        self._model, self._tick, self._done = model, tick, 0

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Draw.

        Args:
            input_ids: (requests * codebooks, tokens so far).
            scores: (requests * codebooks, vocabulary), twice as many rows with guidance: conditional ones first.

        Raises:
            EngineFailed: scores that are no numbers.
        """
        import torch

        guided = scores.float()
        if self._guidance > 1:
            told, free = guided.chunk(2)
            guided = torch.lerp(free, told, self._guidance)
        best, places = guided.topk(min(self._top_k, guided.shape[-1]))
        best = best.cpu()
        if not bool(best[:, 0].isfinite().all()):  # topk takes what is no number for the greatest
            fix = "check the weights; with fp16 try bf16 or fp32"
            raise EngineFailed(f"{self._model}: the network's output holds no numbers", fix=fix)
        rows = torch.softmax(best / self._temperature, dim=-1).chunk(len(self._generators))
        drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(rows, self._generators, strict=True)]
        tokens = places.gather(1, torch.cat(drawn).to(places.device))
        chosen = torch.full_like(guided, _NEVER).scatter_(1, tokens, 0.0).to(scores.dtype)
        self._done += 1
        self._tick(self._done)
        return torch.cat([chosen, chosen]) if self._guidance > 1 else chosen
