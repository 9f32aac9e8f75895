"""What pipelines refuse because no model of the repository offers it."""

from pathlib import Path

import pytest

from graphs.app import job_types, studio_of
from graphs.inputs import check_language, check_voice
from serving.errors import BadInput
from serving.repository.load import load_repository


def test_the_studio_knows_voices_and_languages_of_the_models_that_answer(repository_root: Path) -> None:
    studio = studio_of(load_repository([repository_root / "model_repository"]))
    assert {"asha", "ravi", "narrator"} <= set(studio.voices)
    assert "hi" in studio.languages["speech"]
    assert studio.models["log_mel"].license
    check_language("en-AU", studio, "speech")
    check_voice("asha", studio.voices, field="voice")


@pytest.mark.parametrize(("task", "language"), [("speech", "xx"), ("transcription", "ta"), ("alignment", "fr-FR")])
def test_a_language_nobody_knows_is_refused_with_those_that_are(
    repository_root: Path, task: str, language: str
) -> None:
    studio = studio_of(load_repository([repository_root / "model_repository"]))
    with pytest.raises(BadInput, match=r"one of: .*en"):
        check_language(language, studio, task)


def test_every_pipeline_is_a_job_type_with_its_stages(repository_root: Path) -> None:
    types = job_types(load_repository([repository_root / "model_repository"]))
    assert set(types) == {"podcast_video", "video_generation", "subtitle_generation"}
    assert all(job_type.stages and job_type.check for job_type in types.values())
