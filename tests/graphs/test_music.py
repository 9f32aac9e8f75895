"""Music: which mood a prompt speaks of, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graphs.music import MusicPieceRequest, check, mood_of, predict
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput


@pytest.mark.parametrize(
    ("wanted", "mood"),
    [
        pytest.param({}, "calm", id="nothing said"),
        pytest.param({"prompt": "Something for the credits."}, "calm", id="no word of a mood"),
        pytest.param({"prompt": "An UPBEAT, sunny market"}, "bright", id="case and commas"),
        pytest.param({"prompt": "a dark chase, but with a happy end"}, "dramatic", id="most words decide"),
        pytest.param({"prompt": "a dark chase", "mood": "calm"}, "calm", id="a mood overrides the prompt"),
        pytest.param({"prompt": "the warmth of a function"}, "calm", id="words, not parts of them"),
    ],
)
def test_the_mood_is_what_was_asked_for_or_what_the_prompt_speaks_of(wanted: dict[str, Any], mood: str) -> None:
    assert mood_of(MusicPieceRequest.model_validate({"duration_s": 20, **wanted})) == mood


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"duration_s": 3}, id="shorter than a bar"),
        pytest.param({"duration_s": 1201}, id="longer than a job may take"),
        pytest.param({"duration_s": float("nan")}, id="no number"),
        pytest.param({"mood": "angry"}, id="unknown mood"),
        pytest.param({"loudness_lufs": -11.5}, id="louder than it sounds well"),
        pytest.param({"seed": -1}, id="seed"),
        pytest.param({"prompt": "x" * 2001}, id="long prompt"),
        pytest.param({"tempo": 120}, id="unknown field"),
    ],
)
def test_what_is_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MusicPieceRequest.model_validate({"duration_s": 20, **wrong})


@pytest.mark.parametrize("prompt", ["...", "  ", "🎻"])
async def test_a_prompt_without_words_is_refused(tmp_path: Path, prompt: str) -> None:
    request = MusicPieceRequest(duration_s=20, prompt=prompt)
    with pytest.raises(BadInput, match="prompt: there are no words"):
        await check(request, ArtifactStore(tmp_path.as_uri(), tmp_path))


def test_longer_music_costs_more() -> None:
    assert predict(MusicPieceRequest(duration_s=200)) > 2 * predict(MusicPieceRequest(duration_s=20)) > 0
