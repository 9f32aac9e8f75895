"""Talking portraits: what is refused before any work, and what a request will cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from graphs.inputs import Studio
from graphs.lipsync import AnimationRequest, check, predict, speech_of
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput

ROOT = Path(__file__).parents[2]
FACE = ROOT / "examples" / "podcast" / "portraits" / "asha.png"
RECORDING = ROOT / "examples" / "subtitles" / "recording.flac"
STUDIO = Studio(
    voices={"narrator": "", "asha": ""},
    languages={"speech": ("en", "hi"), "alignment": ("en",), "transcription": ("en",)},
    models={},
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path.as_uri(), tmp_path / "cache")


async def request_of(store: ArtifactStore, tmp_path: Path, **fields: Any) -> AnimationRequest:
    """A request whose files are written as ``seconds`` of noise, or taken as they are."""
    made = {"portrait": FACE, **fields}
    if isinstance(seconds := made.get("audio"), int):
        made["audio"] = tmp_path / "noise.wav"
        noise = np.random.default_rng(0).normal(0, 0.1, seconds * 4000)
        soundfile.write(made["audio"], noise, 4000, subtype="PCM_U8")
    given = {
        name: await store.put_file(value, media_type="application/octet-stream") if isinstance(value, Path) else value
        for name, value in made.items()
    }
    return AnimationRequest.model_validate(given)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"text": "Hello."}, id="text"),
        pytest.param({"text": "नमस्ते", "language": "hi", "captions": {}}, id="captions of a text need no aligner"),
        pytest.param({"audio": RECORDING}, id="recording"),
        pytest.param({"audio": RECORDING, "language": "ta"}, id="a mouth follows any language"),
        pytest.param({"audio": RECORDING, "voice": "bob"}, id="a recording has its own voice"),
        pytest.param({"audio": RECORDING, "text": "We had one.", "captions": {}}, id="recording and its words"),
        pytest.param({"audio": 600}, id="ten minutes"),
    ],
)
async def test_what_can_be_animated_passes(store: ArtifactStore, tmp_path: Path, fields: dict[str, Any]) -> None:
    await check(await request_of(store, tmp_path, **fields), store, studio=STUDIO)


@pytest.mark.parametrize(
    ("fields", "field", "part"),
    [
        pytest.param({}, "text", "give a text or audio", id="nothing to say"),
        pytest.param({"text": "..."}, "text", "has no words", id="no words"),
        pytest.param({"text": "x" * 2001}, "text", "over the bound", id="long paragraph"),
        pytest.param({"text": "Hi.", "portrait": RECORDING}, "portrait", "is not a picture", id="no picture"),
        pytest.param({"text": "Hi.", "voice": "ash"}, "voice", "did you mean 'asha'", id="voice"),
        pytest.param({"text": "Hi.", "language": "ta"}, "language", "one of: en, hi", id="language"),
        pytest.param({"audio": FACE}, "audio", "not audio or video", id="a picture as sound"),
        pytest.param({"audio": 601}, "audio", "at most 600 s", id="long recording"),
        pytest.param({"audio": RECORDING, "text": "?!"}, "text", "has no words", id="transcript without words"),
        pytest.param(
            {"audio": RECORDING, "language": "hi", "captions": {}}, "language", "transcription", id="nobody hears it"
        ),
        pytest.param(
            {"audio": RECORDING, "text": "क", "language": "hi", "captions": {}},
            "language",
            "alignment",
            id="or times it",
        ),
    ],
)
async def test_what_cannot_be_animated_is_refused_with_field_and_fix(
    store: ArtifactStore, tmp_path: Path, fields: dict[str, Any], field: str, part: str
) -> None:
    request = await request_of(store, tmp_path, **fields)
    with pytest.raises(BadInput) as caught:
        await check(request, store, studio=STUDIO)
    assert caught.value.field == field
    assert caught.value.fix
    assert part in str(caught.value)


async def test_a_text_is_said_paragraph_by_paragraph(store: ArtifactStore, tmp_path: Path) -> None:
    request = await request_of(store, tmp_path, text="One.\n\nTwo.", voice="asha", seed=2)
    assert [(said.text, said.voice, said.seed) for said in speech_of(request)] == [
        ("One.", "asha", 2),
        ("Two.", "asha", 2),
    ]


async def test_what_is_longer_or_larger_costs_more(store: ArtifactStore, tmp_path: Path) -> None:
    costs = [
        predict(await request_of(store, tmp_path, **fields))
        for fields in (
            {"text": "Hello there.", "video": {"width": 320, "height": 320}},
            {"text": "Hello there."},
            {"text": "Hello there. " * 20},
            {"audio": RECORDING, "captions": {}},
            {"audio": 300, "captions": {}},
        )
    ]
    assert 0 < costs[0] < costs[1] < costs[2]
    assert costs[3] < costs[4]
