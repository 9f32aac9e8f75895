"""What every network engine does: checks, batches, seeds, steps, cancel, recovery, saying how a result was made."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from serving.backends.call import Call
from serving.backends.ray.engines.network.checkpoint import reading
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import BadInput, Cancelled, DeadlineExceeded, EngineFailed, NotFound, OutOfMemory, Unavailable
from serving.protocol.tasks import ImageRequest, MusicRequest, MusicResult, SpeechRequest, TaskResult
from tests.servers.tiny import context_in
from tests.serving.backends.ray.engines.network.toy import Painter, Toy, ToyEngine, toy_engine, toy_model


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ToyEngine]:
    engine = toy_engine(tmp_path, context_in(tmp_path), options={"batch": 4})
    yield engine
    await engine.close()


async def music(engine: ToyEngine, call: Call | None = None, **fields: object) -> MusicResult:
    result = await engine.run(MusicRequest.model_validate({"duration_s": 1, **fields}), call or Call())
    assert isinstance(result, MusicResult)
    return result


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.005)


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: ToyEngine) -> None:
    first, again, other = [await music(engine, seed=seed) for seed in (1, 1, 2)]
    assert first.audio == again.audio
    assert first.audio.sha256 != other.audio.sha256


async def test_a_result_says_how_it_was_made(engine: ToyEngine) -> None:
    made = (await music(engine, seed=5, steps=3)).made
    assert made is not None
    assert (made.model, made.revision, made.seed, made.steps, made.batch) == ("toy", "r1", 5, 3, 1)
    assert (made.device, made.precision) == ("cpu", "fp32")
    assert set(made.timings_s) == {"prepare", "queue", "run", "finish"}


async def test_a_result_names_the_fine_tune_that_its_request_did(tmp_path: Path) -> None:
    engine = Painter(toy_model(tmp_path, task="image"), context_in(tmp_path))
    named, bare = [
        (await engine.run(ImageRequest(prompt="a", adapter=adapter), Call())).made for adapter in ("ink", None)
    ]
    assert named is not None
    assert bare is not None
    assert (named.adapter, bare.adapter) == ("ink", None)
    await engine.close()


async def test_requests_that_fit_together_share_the_passes(engine: ToyEngine) -> None:
    alone = [(await music(engine, seed=seed)).audio for seed in range(4)]
    engine.batches.clear()
    together = await asyncio.gather(*(music(engine, seed=seed) for seed in range(4)), music(engine, seed=9, steps=2))
    assert sorted(engine.batches) == [1, 4]
    assert [result.audio for result in together[:4]] == alone
    assert [result.made.batch for result in together if result.made] == [4, 4, 4, 4, 1]


async def test_progress_is_told_step_by_step(engine: ToyEngine) -> None:
    told: list[float] = []
    await music(engine, Call(on_progress=told.append), steps=5)
    assert told == [0.2, 0.4, 0.6, 0.8, 1.0]


async def test_a_cancel_takes_effect_at_the_next_step(engine: ToyEngine) -> None:
    call, told = Call(), list[float]()

    def stop(done: float) -> None:
        told.append(done)
        call.cancel()

    call.on_progress = stop
    with pytest.raises(Cancelled):
        await music(engine, call, steps=50)
    assert told == [0.02]
    assert (await music(engine)).duration_s == 1


async def test_a_cancelled_request_leaves_its_batch_and_the_others_go_on(engine: ToyEngine) -> None:
    whole = (await music(engine, seed=1, steps=20)).audio
    call = Call()
    call.on_progress = lambda _done: call.cancel()
    left, stayed = await asyncio.gather(
        music(engine, call, seed=2, steps=20), music(engine, seed=1, steps=20), return_exceptions=True
    )
    assert isinstance(left, Cancelled)
    assert isinstance(stayed, MusicResult)
    assert stayed.audio == whole


async def test_a_client_that_goes_away_stops_the_work(engine: ToyEngine) -> None:
    call = Call()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    call.on_progress = lambda _done: loop.call_soon_threadsafe(began.set)
    task = asyncio.create_task(music(engine, call, steps=200))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await music(engine, steps=2)).made is not None


async def test_a_deadline_that_passed_is_told_before_any_work(engine: ToyEngine) -> None:
    with pytest.raises(DeadlineExceeded):
        await music(engine, Call(deadline_unix_s=1.0))
    assert engine.batches == []


async def test_one_failed_request_fails_alone_and_leaves_the_replica_as_it_was(engine: ToyEngine) -> None:
    before = (await music(engine, seed=3)).audio
    answers: list[TaskResult | BaseException] = await asyncio.gather(
        music(engine, seed=3), music(engine, prompt="fail"), music(engine, seed=3), return_exceptions=True
    )
    assert isinstance(answers[1], EngineFailed)
    assert str(answers[1]) == "toy: ZeroDivisionError: somewhere inside"
    assert [answer.audio for answer in answers if isinstance(answer, MusicResult)] == [before, before]
    assert engine.recovered == 2  # for the batch, and for the guilty one alone


async def test_out_of_memory_is_retryable_and_says_what_to_lower(engine: ToyEngine) -> None:
    with pytest.raises(OutOfMemory) as caught:
        await music(engine, prompt="hog")
    assert caught.value.retryable
    assert caught.value.fix == "lower duration_s, steps, or give the model a larger share"
    assert (await music(engine)).duration_s == 1


async def test_an_engine_that_loses_outputs_is_an_error(engine: ToyEngine) -> None:
    with pytest.raises(EngineFailed, match="0 outputs for 1 requests"):
        await music(engine, prompt="short")


async def test_another_tasks_request_is_refused(engine: ToyEngine) -> None:
    with pytest.raises(BadInput, match="cannot answer SpeechRequest"):
        await engine.run(SpeechRequest(text="a", voice="b"), Call())


async def test_warming_up_counts_into_the_cold_start(engine: ToyEngine) -> None:
    assert engine.cold_start.warm_up_s is None
    assert engine.cold_start.weights_bytes > 256
    await engine.warm_up()
    assert engine.cold_start.warm_up_s is not None
    assert engine.cold_start.total_s > engine.cold_start.load_s


async def test_a_closing_engine_refuses_what_waits_and_stops_what_runs(tmp_path: Path) -> None:
    engine = toy_engine(tmp_path, context_in(tmp_path))
    call, gate = Call(), threading.Event()

    def hold_up(_done: float) -> None:
        gate.wait(10)

    call.on_progress = hold_up
    running = asyncio.create_task(music(engine, call, steps=200))
    waiting = asyncio.create_task(music(engine))
    await until(lambda: len(engine.runner.waiting) == 1)
    closing = asyncio.create_task(engine.close())
    await until(lambda: engine.runner.waiting == [])
    gate.set()
    await closing
    with pytest.raises(Cancelled):
        await running
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await music(engine)


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        pytest.param({"precision": "int8"}, "the engine 'synth' cannot run int8", id="family"),
        pytest.param({"precision": "fp16"}, "fp16 on a CPU is slow and imprecise", id="device"),
    ],
)
def test_a_precision_that_cannot_be_run_is_refused(tmp_path: Path, card: dict[str, str], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        toy_engine(tmp_path, context_in(tmp_path), **card)


def test_weights_that_cannot_be_loaded_are_let_go(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    with pytest.raises(NotFound, match="file:nowhere is not there"):
        toy_engine(tmp_path, context, source={"uri": "file:nowhere"})


async def test_a_request_is_answered_even_where_nothing_can_be_recovered(
    engine: ToyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(engine, "recover", lost)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            music(engine, prompt="fail"), music(engine, prompt="fail"), music(engine, prompt="hog"),
            return_exceptions=True,
        )  # fmt: skip
    assert [type(answer) for answer in answers] == [EngineFailed, EngineFailed, OutOfMemory]
    assert (await music(engine, seed=3)).made is not None


def test_a_device_that_is_too_small_for_the_weights_is_no_bad_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: ToyEngine) -> None:
        import torch

        reading("toy", lambda: torch.empty(1 << 58, dtype=torch.uint8), self.weights.folder)

    monkeypatch.setattr(ToyEngine, "load", load)
    with pytest.raises(OutOfMemory, match=r"toy does not fit into memory: give it a larger share\.gpu or device"):
        toy_engine(tmp_path, context_in(tmp_path))


async def test_what_else_lies_in_a_folder_is_neither_read_nor_counted(tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    (model.folder / "weights" / ".other.bin").write_bytes(bytes(1 << 20))
    (model.folder / "weights" / "notes.pdf").write_bytes(bytes(1 << 20))
    engine = ToyEngine(model, context_in(tmp_path))
    assert [path.name for path in engine.weights.files] == ["model.safetensors"]
    assert engine.cold_start.weights_bytes == (model.folder / "weights" / "model.safetensors").stat().st_size
    await engine.close()


async def test_heavy_requests_wait_unprepared_and_leave_their_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyEngine, "heavy", True)
    engine = toy_engine(tmp_path, context_in(tmp_path), options={"batch": 2})
    alive, most = 0, 0
    prepare, generate = engine.prepare, engine.generate

    def counted(request: MusicRequest, files: Mapping[str, Path]) -> Toy:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return prepare(request, files)

    def done(batch: Sequence[Toy], steps: Steps) -> Sequence[np.ndarray]:
        nonlocal alive
        alive -= len(batch)
        return generate(batch, steps)

    monkeypatch.setattr(engine, "prepare", counted)
    monkeypatch.setattr(engine, "generate", done)
    answers = await asyncio.gather(*(music(engine, seed=seed) for seed in range(12)), return_exceptions=True)
    assert all(isinstance(answer, MusicResult) for answer in answers)
    assert most <= 4 + 2  # those that wait, and those at work, which were counted off before
    waiting = [asyncio.create_task(music(engine, steps=200)) for _ in range(6)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (await music(engine, seed=3)).made is not None
    await engine.close()
