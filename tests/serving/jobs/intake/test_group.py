import importlib
from typing import get_args

import pytest

from serving.errors import BadInput, MissingDependency
from serving.jobs.intake import group
from serving.jobs.intake.group import IntakeGroup, make_source
from serving.settings import IntakeSettings, Settings, settings_problem
from tests.serving.jobs.intake.site import intake_settings
from tests.serving.jobs.office import Office


def test_every_kind_of_the_settings_has_a_source() -> None:
    kinds = get_args(IntakeSettings.model_fields["kind"].annotation)
    assert set(group.SOURCES) == set(kinds)


def test_a_missing_library_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("no", name="redis")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match="redis") as caught:
        make_source(intake_settings("redis", "redis://nowhere"))
    assert caught.value.fix == "pip install 'reelmesh[intakes]'"


async def test_a_broker_that_is_away_stops_no_start(office: Office) -> None:
    intakes = [intake_settings("redis", "redis://127.0.0.1:1/0")]
    opened = IntakeGroup(intakes, office.desk, office.store, office.database, most_bytes=1000)
    opened.start()
    opened.check()
    await opened.stop()
    await opened.stop()


def test_two_intakes_of_one_queue_are_refused(office: Office) -> None:
    twice = [IntakeSettings(kind="redis", url="redis://a", queue="films")] * 2
    with pytest.raises(BadInput, match="same kind and queue"):
        IntakeGroup(twice, office.desk, office.store, office.database, most_bytes=1000)


def test_no_password_of_a_broker_is_shown() -> None:
    settings = Settings(intakes=[IntakeSettings(kind="redis", url="redis://:hunter2@h", queue="films")])
    assert "hunter2" not in f"{settings!r}"
    with pytest.raises(ValueError) as caught:
        Settings.model_validate({"intakes": [{"kind": "redis", "url": "redis://:hunter2@h"}]})
    problem = settings_problem(caught.value)
    assert "hunter2" not in str(problem)
    assert problem.field == "REELMESH_INTAKES__0__QUEUE"
