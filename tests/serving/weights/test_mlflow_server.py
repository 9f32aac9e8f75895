"""MLflow as a source: a server with the real one's answers, and what any other answer may be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput, NotFound, ReelmeshError, Unsupported
from serving.weights.http_bytes import parse_object
from serving.weights.mlflow_server import base_of, entries_of, text_at
from tests.serving.weights.mlflow_app import Tracking, running_tracking
from tests.serving.weights.models import FILES, cache, model, write

RUN = "2d63a0aab003430b995f7727f46d4c0b"
PLACE = f"0/{RUN}/artifacts"


@pytest.fixture
def tracking() -> Iterator[Tracking]:
    with running_tracking() as running:
        running.artifacts = {f"{PLACE}/weights/{name}": data for name, data in FILES.items()}
        running.artifacts[f"{PLACE}/weights/sub folder/a.json"] = b"[]"
        running.runs[RUN] = f"mlflow-artifacts:/{PLACE}"
        running.logged["m-1"] = f"mlflow-artifacts:/{PLACE}/weights"
        running.versions = {
            ("writer", "1"): f"mlflow-artifacts:/{PLACE}/weights",
            ("writer", "2"): f"runs:/{RUN}/weights",
            ("writer", "3"): "models:/m-1",
            ("writer", "4"): "gs://bucket/weights",
            ("writer", "5"): "models:/writer/5",
            ("writer", "6"): "mlflow-artifacts:/0/none",
        }
        yield running


@pytest.mark.parametrize("place", ["models/writer/1", "models/writer/2", "models/writer/3", f"runs/{RUN}/weights"])
def test_files_of_a_version_or_a_run_come_through_the_proxy(tracking: Tracking, tmp_path: Path, place: str) -> None:
    (tmp_path / "token").write_text("secret")
    weights = cache(tmp_path, mlflow_url=tracking.url, mlflow_token_file=tmp_path / "token")
    with weights.hold(model(tmp_path, f"mlflow:{place}")) as held:
        assert held.revision == f"mlflow-artifacts:/{PLACE}/weights"
        assert (held.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert (held.folder / "sub folder/a.json").read_bytes() == b"[]"
    assert tracking.tokens == {"Bearer secret"}


def test_one_file_of_a_run_may_be_named(tracking: Tracking, tmp_path: Path) -> None:
    known = model(tmp_path, f"mlflow:runs/{RUN}/weights/config.json")
    with cache(tmp_path, mlflow_url=tracking.url).hold(known) as held:
        assert [path.name for path in held.folder.iterdir()] == ["config.json"]


def test_a_server_that_keeps_artifacts_on_this_machine_is_read_from_there(tracking: Tracking, tmp_path: Path) -> None:
    tracking.runs["local"] = f"file://{write(tmp_path / 'art', FILES)}"
    with cache(tmp_path, mlflow_url=tracking.url).hold(model(tmp_path, "mlflow:runs/local")) as held:
        assert {path.name for path in held.folder.iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("place", "kind", "problem"),
    [
        pytest.param("models/writer/9", NotFound, "MLflow has no models/writer/9", id="version"),
        pytest.param("runs/none/x", NotFound, "MLflow has no runs/none/x", id="run"),
        pytest.param("models/writer/6", NotFound, "has no files", id="path"),
        pytest.param("models/writer/4", Unsupported, "MLflow keeps it at gs:", id="another store"),
        pytest.param("models/writer/5", BadInput, "leads from place to place", id="a circle"),
        pytest.param("models/writer/latest", BadInput, "write mlflow:models/NAME/VERSION", id="no version"),
        pytest.param("runs/x/../y", BadInput, "does not have the form", id="climbing"),
    ],
)
def test_what_is_not_there_is_named(
    tracking: Tracking, tmp_path: Path, place: str, kind: type[ReelmeshError], problem: str
) -> None:
    with pytest.raises(kind, match=problem) as caught:
        cache(tmp_path, mlflow_url=tracking.url).hold(model(tmp_path, f"mlflow:{place}"))
    assert "\n" not in str(caught.value)


def test_without_a_server_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"weights\.mlflow_url: no MLflow server is named"):
        cache(tmp_path).hold(model(tmp_path, "mlflow:models/writer/1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "is_dir", "file_size", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(files=JSON)
def test_any_listing_is_read_or_refused(files: Any) -> None:
    try:
        found = entries_of({"files": files})
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert all(path and ".." not in path.split("/") for path, _ in found)


def test_numbers_may_be_written_as_text_and_zero_left_out() -> None:
    listing = {"files": [{"path": "a", "is_dir": False, "file_size": "12"}, {"path": "b", "is_dir": False}]}
    assert entries_of(listing) == [("a", 12), ("b", 0)]


@given(body=st.binary(max_size=60) | JSON.map(lambda value: repr(value).encode()))
def test_any_answer_is_an_object_or_refused(body: bytes) -> None:
    try:
        assert text_at(parse_object(body, "MLflow"), "run", "info", "artifact_uri")
    except ReelmeshError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("netloc", "base"),
    [
        pytest.param("", ("http://ann:secret@track:5000/ml", True), id="its own"),
        pytest.param("track:5000", ("http://ann:secret@track:5000/ml", True), id="its own by name"),
        pytest.param("track:5001", ("http://track:5001", False), id="another port"),
        pytest.param("bob@elsewhere", ("http://elsewhere", False), id="another host"),
    ],
)
def test_token_and_user_go_to_the_server_that_was_asked_alone(netloc: str, base: tuple[str, bool]) -> None:
    assert base_of("http://ann:secret@track:5000/ml", netloc) == base
    with pytest.raises(BadInput, match="names a place of artifacts that is none"):
        base_of("http://track:5000", "track:port")
