"""What the base of pipelines does whatever the family: options, steps of any scheduler, recovery, letting go."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch

from serving.backends.call import Call
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import ImageRequest, MusicRequest
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE = ImageRequest(prompt="rain", width=64, height=64, seed=7)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    options = {"steps": 3, "guidance": 2.5, "batch": 2}
    engine = tiny_engine("sdxl", context_in(tmp_path_factory.mktemp("base")), options=options)
    yield engine
    await engine.close()


async def test_what_a_request_leaves_open_the_card_says(engine: Any) -> None:
    made = (await engine.run(PICTURE, Call())).made
    assert made.steps == 3
    assert await laws.sha(engine, PICTURE, guidance=2.5) == await laws.sha(engine, PICTURE)
    assert await laws.sha(engine, PICTURE, guidance=0.0) != await laws.sha(engine, PICTURE)


async def test_an_option_that_is_no_number_is_named(engine: Any) -> None:
    engine.model.card.options["steps"] = "many"
    try:
        with pytest.raises(BadInput, match=r"sdxl/model.yaml:options.steps: 'many' is no number"):
            await engine.run(PICTURE, Call())
    finally:
        engine.model.card.options["steps"] = 3


async def test_a_request_of_another_task_is_refused(engine: Any) -> None:
    with pytest.raises(BadInput, match="cannot answer MusicRequest"):
        await engine.run(MusicRequest(duration_s=1), Call())


async def test_schedulers_of_second_order_tell_progress_to_the_end(engine: Any) -> None:
    from diffusers import HeunDiscreteScheduler

    told: list[float] = []
    before, engine.pipeline.scheduler = (
        engine.pipeline.scheduler,
        HeunDiscreteScheduler.from_config(engine.pipeline.scheduler.config),
    )
    try:
        made = (await engine.run(PICTURE, Call(on_progress=told.append))).made
    finally:
        engine.pipeline.scheduler = before
    assert told == sorted(told)
    assert told[-1] == 1
    assert made.steps == 5


async def test_a_failure_of_the_library_is_told_and_the_decoder_gets_its_precision_back(engine: Any) -> None:
    before = await laws.sha(engine, PICTURE)
    engine.pipeline.vae.to(torch.float64)  # as an interrupted decoding leaves one that is raised for it
    with pytest.raises(EngineFailed, match=r"sdxl: RuntimeError: .*dtype|sdxl: RuntimeError: .*type"):
        await engine.run(PICTURE, Call())
    assert engine.pipeline.vae.dtype == torch.float32
    assert await laws.sha(engine, PICTURE) == before


async def test_a_closed_engine_holds_no_pipeline(tmp_path_factory: pytest.TempPathFactory) -> None:
    engine: Any = tiny_engine("sdxl", context_in(tmp_path_factory.mktemp("closed")))
    await engine.close()
    assert engine.pipeline is None
