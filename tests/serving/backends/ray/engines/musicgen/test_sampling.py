"""Tokens drawn for each request by itself."""

import pytest
import torch

from serving.backends.ray.engines.musicgen.sampling import Sampling
from serving.errors import Cancelled, EngineFailed

CODEBOOKS, TOKENS = 2, 16


def scores(rows: int) -> torch.Tensor:
    return torch.randn(rows, TOKENS, generator=torch.Generator().manual_seed(0))


def drawn(seeds: list[int], given: torch.Tensor, guidance: float = 1.0, top_k: int = 8) -> list[int]:
    sampling = Sampling(seeds, guidance=guidance, top_k=top_k, temperature=1.0, model="toy", tick=lambda _: None)
    return sampling(torch.zeros(len(seeds) * CODEBOOKS, 1), given).argmax(dim=-1).tolist()


def test_a_request_draws_the_same_whatever_shares_its_batch() -> None:
    given = scores(2 * CODEBOOKS)
    together = drawn([5, 6], given)
    assert together == drawn([5], given[:CODEBOOKS]) + drawn([6], given[CODEBOOKS:])


def test_only_the_best_tokens_are_drawn() -> None:
    given = scores(CODEBOOKS)
    assert drawn([1], given, top_k=1) == given.argmax(dim=-1).tolist()


def test_guidance_goes_from_the_free_scores_towards_the_told_ones() -> None:
    told, free = torch.zeros(CODEBOOKS, TOKENS), torch.zeros(CODEBOOKS, TOKENS)
    told[:, 3], free[:, 7] = 1.0, 1.0
    assert drawn([1], torch.cat([told, free]), guidance=3.0, top_k=1) == [3, 3] * 2


def test_scores_that_are_no_numbers_are_an_error() -> None:
    given = scores(CODEBOOKS)
    given[0, 0] = float("nan")
    with pytest.raises(EngineFailed, match="no numbers"):
        drawn([1], given)


def test_steps_are_told_and_what_they_raise_ends_the_music() -> None:
    def tick(tokens: int) -> None:
        heard.append(tokens)
        if tokens == 2:
            raise Cancelled("enough")

    heard: list[int] = []
    sampling = Sampling([1], guidance=1.0, top_k=4, temperature=1.0, model="toy", tick=tick)
    sampling(torch.zeros(CODEBOOKS, 1), scores(CODEBOOKS))
    with pytest.raises(Cancelled):
        sampling(torch.zeros(CODEBOOKS, 2), scores(CODEBOOKS))
    assert heard == [1, 2]
