"""Which model and backend serve a task."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving import router as module
from serving.backends.call import Call
from serving.backends.limits import check_limits
from serving.errors import BadInput, Cancelled, EngineFailed, LicenceForbids, NotFound, ReelmeshError, Unavailable
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import COMMERCIAL, NON_COMMERCIAL
from serving.protocol.tasks import MusicRequest, MusicResult, SpeechRequest, TaskRequest, TaskResult
from serving.repository.load import Repository
from serving.repository.model import License, Model, ModelCard, Source
from serving.router import Router, candidates
from serving.settings import LicenceSettings

MUSIC = MusicResult(audio=ArtifactRef(sha256="0" * 64, size_bytes=1), duration_s=1.0)
ASK = MusicRequest(duration_s=1.0)


class Answering:
    """A backend that plays a list of answers, then keeps giving the last one."""

    def __init__(self, name: str, models: Sequence[str], *answers: TaskResult | ReelmeshError) -> None:
        self.name = name
        self.asked: list[str] = []
        self._models = models
        self._answers = list(answers)

    def serves(self, model: str) -> bool:
        return model in self._models

    async def run(self, model: str, _request: TaskRequest, _call: Call) -> TaskResult:
        self.asked.append(model)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, ReelmeshError):
            raise answer
        return answer


def model(name: str, task: str = "music", **card: object) -> Model:
    values = {
        "description": "for tests",
        "task": task,
        "backend": "ray",
        "engine": "synth",
        "license": License(name="MIT", commercial_use=True),
        "source": Source(uri="builtin:"),
        **card,
    }
    return Model(name, Path("/") / name, ModelCard.model_validate(values), ModelConfig(name=name), ())


def repository(*models: Model) -> Repository:
    return Repository({one.name: one for one in models})


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_S", 0.0)


async def test_a_request_goes_to_the_default_model_of_its_task() -> None:
    backend = Answering("composers", ["bed", "other"], MUSIC)
    call = Call()
    router = Router(repository(model("bed"), model("other"), model("voice", "speech")), [backend])
    assert await router.run(ASK, call) == MUSIC
    assert backend.asked == ["bed"]
    assert call.served_by == "ray/bed", "the model's backend, whatever the group of replicas is called"


async def test_a_retryable_error_moves_on_to_the_fallback() -> None:
    first, second = Answering("ray", ["bed"], Unavailable("full")), Answering("saas", ["other"], MUSIC)
    router = Router(repository(model("bed", fallback=["other"]), model("other")), [first, second])
    call = Call()
    assert await router.run(ASK, call) == MUSIC
    assert (first.asked, second.asked) == (["bed"], ["other"])
    assert call.tries == 2


async def test_a_retryable_error_is_tried_again_and_is_final_after_the_last_round() -> None:
    backend = Answering("ray", ["bed"], Unavailable("full"))
    with pytest.raises(Unavailable, match="full"):
        await Router(repository(model("bed")), [backend]).run(ASK, Call())
    assert len(backend.asked) == module.ROUNDS


async def test_a_final_error_is_not_tried_again() -> None:
    backend = Answering("ray", ["bed", "other"], EngineFailed("broken"))
    with pytest.raises(EngineFailed, match="broken"):
        await Router(repository(model("bed", fallback=["other"]), model("other")), [backend]).run(ASK, Call())
    assert backend.asked == ["bed"]


async def test_a_cancelled_call_reaches_no_backend() -> None:
    backend, call = Answering("ray", ["bed"], MUSIC), Call()
    call.cancel()
    with pytest.raises(Cancelled):
        await Router(repository(model("bed")), [backend]).run(ASK, call)
    assert backend.asked == []


async def test_a_request_over_the_models_limits_leaves_the_router_never() -> None:
    backend = Answering("ray", ["bed"], MUSIC)
    router = Router(repository(model("bed", limits={"duration_s": 0.5})), [backend])
    with pytest.raises(BadInput, match="duration_s"):
        await router.run(ASK, Call())
    assert backend.asked == []


async def test_a_fallback_with_narrower_limits_does_not_hide_why_the_model_failed() -> None:
    backend = Answering("ray", ["bed", "other"], Unavailable("full"))
    models = (model("bed", fallback=["other"]), model("other", limits={"duration_s": 0.5}))
    with pytest.raises(Unavailable, match="full"):
        await Router(repository(*models), [backend]).run(ASK, Call())
    assert set(backend.asked) == {"bed"}


@pytest.mark.parametrize(
    ("task", "name", "error", "part"),
    [
        pytest.param("image", None, NotFound, "no model serves", id="task without a model"),
        pytest.param("music", "bad", NotFound, "did you mean 'bed'", id="unknown model"),
        pytest.param("music", "voice", BadInput, "does speech, not music", id="model of another task"),
    ],
)
def test_a_request_no_model_can_serve_is_refused(
    task: str, name: str | None, error: type[ReelmeshError], part: str
) -> None:
    with pytest.raises(error) as caught:
        candidates(repository(model("bed"), model("voice", "speech")), task, name)
    assert part in str(caught.value)


def test_limits_count_characters_of_texts() -> None:
    card = model("voice", "speech", limits={"text": 3}).card
    check_limits(card, SpeechRequest(text="abc", voice="v"))
    with pytest.raises(BadInput, match="4 characters"):
        check_limits(card, SpeechRequest(text="abcd", voice="v"))


RESEARCH = License(name="CC-BY-NC-4.0", commercial_use=False)
REVENUE = License(name="Community", commercial_use="conditional", condition="small studios")


async def test_commercial_work_is_refused_before_any_backend_is_asked_with_what_may_be_used_instead() -> None:
    backend = Answering("ray", ["bed", "free"], MUSIC)
    router = Router(repository(model("bed", license=RESEARCH, default=True), model("free")), [backend])
    for ask in (None, "bed"):
        with pytest.raises(LicenceForbids, match=r"'bed' are under CC-BY-NC-4\.0.*use 'free'"):
            await router.run(ASK, Call(), model=ask)
        with pytest.raises(LicenceForbids, match="use 'free'"):
            router.identity(ASK, model=ask)
        with pytest.raises(LicenceForbids, match="use 'free'"):
            router.permit("music", COMMERCIAL, model=ask)
    assert backend.asked == []
    await router.run(ASK, Call(use=NON_COMMERCIAL))
    assert router.identity(ASK, use=NON_COMMERCIAL).commercial_use is False
    router.permit("music", NON_COMMERCIAL)
    router.permit("image", COMMERCIAL)
    assert backend.asked == ["bed"]


async def test_a_fallback_that_the_licence_forbids_is_left_out() -> None:
    models = (model("bed", fallback=["nc", "free"]), model("nc", license=RESEARCH), model("free"))
    for use, expected in ((COMMERCIAL, ["bed", "free"]), (NON_COMMERCIAL, ["bed", "nc"])):
        busy, idle = Answering("ray", ["bed"], Unavailable("full")), Answering("ray", ["nc", "free"], MUSIC)
        await Router(repository(*models), [busy, idle]).run(ASK, Call(use=use))
        assert [*busy.asked, *idle.asked] == expected


async def test_a_condition_is_met_where_the_operator_accepts_it() -> None:
    backend, models = Answering("ray", ["bed"], MUSIC), repository(model("bed", license=REVENUE))
    with pytest.raises(LicenceForbids, match="small studios"):
        await Router(models, [backend]).run(ASK, Call())
    await Router(models, [backend], LicenceSettings(accepted=["bed"])).run(ASK, Call())
    assert Router(models, [], LicenceSettings(accepted=["bed"])).identity(ASK).condition == "small studios"


def test_a_call_takes_its_use_along_to_a_replica() -> None:
    sent = pickle.loads(pickle.dumps(Call(job_id="j", stage="s", use=NON_COMMERCIAL)))  # noqa: S301  our own
    assert (sent.job_id, sent.stage, sent.use) == ("j", "s", NON_COMMERCIAL)
    assert pickle.loads(pickle.dumps(Call())).use == COMMERCIAL  # noqa: S301
