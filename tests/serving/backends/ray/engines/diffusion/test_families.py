"""The card's ``architecture`` finds the engine; every engine in the table can be imported and says what it runs."""

import importlib
from pathlib import Path

import diffusers
import pytest

from serving.backends.ray.engines import ENGINES, load_engine
from serving.backends.ray.engines.diffusion.families import FAMILIES
from serving.errors import BadInput
from tests.servers.tiny import changed, context_in, tiny_model

ALL = [(task, kind) for task, kinds in FAMILIES.items() for kind in kinds]


def test_every_task_of_the_table_of_engines_has_families() -> None:
    assert set(ENGINES["diffusers"]) == set(FAMILIES)


@pytest.mark.parametrize(("task", "kind"), ALL)
def test_an_engine_runs_the_pipeline_it_stands_for(task: str, kind: str) -> None:
    module, _, name = FAMILIES[task][kind].partition(":")
    engine = getattr(importlib.import_module(module), name)
    assert engine.kind == kind
    assert hasattr(diffusers, kind)


def test_a_pipeline_without_an_engine_is_refused_with_those_there_are(tmp_path: Path) -> None:
    model = changed(tiny_model("sdxl"), architecture="FluxPipeline")
    with pytest.raises(BadInput, match=r"sdxl/model.yaml:architecture: .*use one of StableDiffusionXLPipeline"):
        load_engine(model, context_in(tmp_path))
