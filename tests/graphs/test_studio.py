"""What pipelines refuse because no model of the repository offers it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from graphs.app import job_types, studio_of
from graphs.inputs import Studio, check_language, check_voice
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobState, Lane
from serving.protocol.tasks import TASKS
from serving.repository.load import Repository
from serving.repository.served import load_served
from serving.settings import Settings


def served(root: Path) -> Repository:
    return load_served(Settings(model_repositories=[root / "model_repository"]).resolved())


def test_the_studio_knows_voices_and_languages_of_the_models_that_answer(repository_root: Path) -> None:
    studio = studio_of(served(repository_root))
    assert {"asha", "ravi", "narrator"} <= set(studio.voices)
    assert "hi" in studio.languages["speech"]
    assert studio.models["log_mel"].license
    check_language("en-AU", studio, "speech")
    check_voice("asha", studio.voices, field="voice")


@pytest.mark.parametrize(("task", "language"), [("speech", "xx"), ("transcription", "ta"), ("alignment", "fr-FR")])
def test_a_language_nobody_knows_is_refused_with_those_that_are(
    repository_root: Path, task: str, language: str
) -> None:
    studio = studio_of(served(repository_root))
    with pytest.raises(BadInput, match=r"one of: .*en"):
        check_language(language, studio, task)


@pytest.mark.parametrize(
    ("language", "known"),
    [("en", True), ("en-AU", True), ("hi", False)],
    ids=["listed", "another region", "not listed"],
)
def test_a_language_is_known_by_the_models_that_list_it(language: str, known: bool) -> None:
    assert Studio(voices={}, languages={"speech": ("en-US",)}, models={}).knows(language, "speech") is known


def test_a_model_that_lists_none_takes_every_language_and_a_missing_one_takes_none() -> None:
    studio = Studio(voices={}, languages={"speech": ()}, models={})
    assert studio.knows("hi", "speech")
    assert not studio.knows("hi", "alignment")
    with pytest.raises(BadInput, match="add a model of the task alignment"):
        check_language("hi", studio, "alignment")


DEFAULTS = {
    "video_generation": (Lane.HIGH, 600, 3),
    "voice_synthesis": (Lane.HIGH, 120, 3),
    "lipsync_animation": (Lane.MEDIUM, 300, 2),
    "music_generation": (Lane.MEDIUM, 240, 2),
    "podcast_video": (Lane.MEDIUM, 900, 2),
    "subtitle_generation": (Lane.LOW, 180, 3),
}


def test_every_pipeline_is_a_job_type_with_its_defaults(repository_root: Path) -> None:
    types = job_types(served(repository_root))
    assert {name: (kind.lane, kind.timeout_s, kind.tries) for name, kind in types.items()} == DEFAULTS
    assert all(kind.stages and kind.check and kind.predict and kind.description for kind in types.values())


def test_the_stages_of_a_pipeline_only_move_a_job_forward(repository_root: Path) -> None:
    order = list(JobState)
    for kind in job_types(served(repository_root)).values():
        states = [order.index(stage.state) for stage in kind.stages]
        assert states == sorted(states), kind.name


@pytest.mark.parametrize("name", DEFAULTS)
async def test_examples_are_taken_and_cost_something(repository_root: Path, tmp_path: Path, name: str) -> None:
    kind = job_types(served(repository_root))[name]
    (path,) = (file for file in (repository_root / "examples").glob("*/*.yaml") if name in file.read_text())
    store = ArtifactStore(tmp_path.as_uri(), tmp_path / "cache")

    async def stored(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: await stored(item) for key, item in value.items()}
        if isinstance(value, list):
            return [await stored(item) for item in value]
        if isinstance(value, str) and value.endswith((".png", ".flac")):
            return await store.put_file(path.parent / value, media_type="application/octet-stream")
        return value

    request = kind.request.model_validate(await stored(yaml.safe_load(path.read_text())))
    assert kind.check is not None and kind.predict is not None
    await kind.check(request, store)
    assert 0.1 < kind.predict(request) < 60
    assert kind.models is not None
    asked = kind.models(request)
    assert asked and set(asked) <= set(TASKS)
    assert set(asked.values()) == {None}
