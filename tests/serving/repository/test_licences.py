"""Which weights commercial work may reach, and what is named instead."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import LicenceForbids
from serving.protocol.licences import COMMERCIAL, NON_COMMERCIAL, USES
from serving.repository.derive import derived_card
from serving.repository.licences import Licences, accepted_problems, typed_task
from serving.repository.load import Repository
from serving.repository.model import Adapter, Component, License, Model, ModelCard, Source
from serving.settings import LicenceSettings

FREE = License(name="MIT", commercial_use=True)
RESEARCH = License(name="CC-BY-NC-4.0", commercial_use=False)
REVENUE = License(name="Community", commercial_use="conditional", condition="less than a million dollars a year")


def model(
    name: str, terms: License, task: str = "speech", *, default: bool = False, steps: tuple[str, ...] = ()
) -> Model:
    card = ModelCard(
        description="for tests", task=task, backend="triton", engine="x", license=terms, source=Source(uri="file:."),
        default=default,
    )  # fmt: skip
    config = ModelConfig(name=name)
    for step in steps:
        config.ensemble_scheduling.step.add(model_name=step)
    return Model(name, Path("/") / name, card, config, (1,))


def licences(*models: Model, **settings: object) -> Licences:
    return Licences({each.name: each for each in models}, LicenceSettings.model_validate(settings))


def test_weights_whose_licence_allows_it_are_open_to_every_use() -> None:
    for use in USES:
        licences().check(model("m", FREE), use)


def test_commercial_work_never_reaches_non_commercial_weights_even_where_somebody_accepts_it() -> None:
    free, own = model("free", FREE), model("nc", RESEARCH)
    with pytest.raises(LicenceForbids) as caught:
        licences(free, own, accepted=["nc"]).check(own, COMMERCIAL)
    assert str(caught.value) == (
        "model: the weights of 'nc' are under CC-BY-NC-4.0, which allows no commercial use: "
        "use 'free'; or, for other work, x-reelmesh-use: non_commercial"
    )
    assert (caught.value.code, caught.value.http_status, caught.value.retryable) == ("licence", 403, False)
    licences(own).check(own, NON_COMMERCIAL)


def test_a_conditional_licence_is_open_once_the_operator_accepts_its_condition() -> None:
    own = model("big", REVENUE)
    refused = licences(own).refusal(own, COMMERCIAL)
    assert refused is not None
    assert "REELMESH_LICENCES__ACCEPTED does not accept: less than a million dollars a year" in str(refused)
    assert "no other model here does speech for commercial work" in str(refused)
    licences(own, accepted=["big"]).check(own, COMMERCIAL)
    licences(own).check(own, NON_COMMERCIAL)


def test_the_tasks_default_is_the_first_alternative_and_none_is_forbidden_itself() -> None:
    own = model("nc", RESEARCH)
    others = (model("b", FREE), model("a", FREE), model("z", FREE, default=True), model("nc2", RESEARCH))
    error = licences(own, *others, model("other", FREE, "music")).refusal(own, COMMERCIAL)
    assert error is not None
    assert str(error.fix).startswith("use 'z', 'a', 'b';")


def test_nothing_stands_in_for_a_model_that_is_reached_by_oip_alone() -> None:
    own, other = model("nc", RESEARCH, "tensor"), model("other", FREE, "tensor")
    error = licences(own, other).refusal(own, COMMERCIAL)
    assert error is not None
    assert "no other model here does the same" in str(error.fix)
    assert (typed_task(own), typed_task(model("m", FREE))) == ("", "speech")


def test_an_ensemble_is_refused_for_any_of_its_steps_however_deep_and_in_circles() -> None:
    step, inner = model("step", RESEARCH), model("inner", FREE, steps=("outer", "step", "gone"))
    outer = model("outer", FREE, steps=("inner",))
    reason = licences(step, inner, outer).reason(outer)
    assert reason.startswith("the weights of 'step' are under CC-BY-NC-4.0")
    assert licences(model("step", FREE), inner, outer).reason(outer) == ""


@pytest.mark.parametrize(("unknown", "refused"), [("allow", False), ("refuse", True)])
def test_terms_that_nobody_has_named_are_the_operators_choice(unknown: str, refused: bool) -> None:
    plain = Model("plain", Path("/plain"), derived_card("onnxruntime"), text_format.Parse("", ModelConfig()), (1,))
    reason = licences(plain, unknown=unknown).reason(plain)
    assert bool(reason) is refused
    assert plain.card.license.is_unknown
    assert licences(plain, unknown=unknown, accepted=["plain"]).reason(plain) == ""


def test_a_reason_is_one_bounded_line() -> None:
    odd = License(name="L\n\x1b[31m" + "x" * 2000, commercial_use=False)
    reason = licences().reason(model("m", odd))
    assert len(reason) == 600
    assert "\n" not in reason
    assert "\x1b" not in reason


def test_what_is_accepted_for_nothing_is_told() -> None:
    models = {each.name: each for each in (model("big", REVENUE), model("nc", RESEARCH), model("free", FREE))}
    assert accepted_problems(models, LicenceSettings(accepted=["big"])) == []
    assert accepted_problems(models, LicenceSettings(accepted=["bigg", "nc", "free"])) == [
        "'bigg' is accepted and no model; did you mean 'big'?",
        "'nc' is accepted, and its licence never allows commercial use",
        "'free' is accepted, and its licence allows commercial use",
    ]


def test_who_names_no_model_is_not_led_to_weights_that_commercial_work_may_not_reach() -> None:
    def first(*models: Model) -> list[str]:
        return [each.name for each in Repository({each.name: each for each in models}).for_task("speech")]

    assert first(model("a", RESEARCH), model("b", REVENUE), model("c", FREE)) == ["c", "a", "b"]
    assert first(model("a", RESEARCH, default=True), model("c", FREE)) == ["a", "c"], "somebody asked for it"
    assert first(model("a", RESEARCH)) == ["a"]


def test_a_part_with_terms_of_its_own_binds_the_whole_model() -> None:
    whole = model("sketch", FREE)
    part = Component(source=Source(uri="file:part"), license=RESEARCH)
    card = whole.card.model_copy(update={"parts": {"controlnet": part}})
    joined = Model(whole.name, whole.folder, card, whole.config, whole.versions)
    with pytest.raises(LicenceForbids, match=r"'controlnet', a part of 'sketch', are under CC-BY-NC-4\.0"):
        licences(joined).check(joined, COMMERCIAL)
    licences(joined).check(joined, NON_COMMERCIAL)


def test_a_fine_tune_with_terms_of_its_own_binds_the_requests_that_name_it() -> None:
    base = model("sdxl", FREE)
    adapters = {
        "ink": Adapter(source=Source(uri="file:ink"), license=RESEARCH),
        "clay": Adapter(source=Source(uri="file:clay")),
    }
    card = base.card.model_copy(update={"adapters": adapters})
    tuned = Model(base.name, base.folder, card, base.config, base.versions)
    for allowed in (None, "clay"):
        licences(tuned).check(tuned, COMMERCIAL, allowed)
    with pytest.raises(LicenceForbids) as caught:
        licences(tuned).check(tuned, COMMERCIAL, "ink")
    assert str(caught.value) == (
        "adapter: the weights of the adapter 'ink' of 'sdxl' are under CC-BY-NC-4.0, which allows no commercial use: "
        "ask for another adapter or none; or, for other work, x-reelmesh-use: non_commercial"
    )
    licences(tuned).check(tuned, NON_COMMERCIAL, "ink")
