"""S3 as a source, against a real S3 server (moto's, over HTTP): a prefix, MLflow's artifacts, DVC's remote."""

from pathlib import Path
from typing import Any

import pytest

from serving.errors import BadInput, NotFound, Unavailable
from serving.weights.bucket import BucketRemote
from tests.serving.weights.dvc_repository import objects, repository
from tests.serving.weights.mlflow_app import running_tracking
from tests.serving.weights.models import FILES, PICKLE, cache, model, safetensors

URL = "s3://studio/models/writer"


def put(bucket: Any, prefix: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        bucket.put_object(Bucket="studio", Key=f"{prefix}/{name}", Body=data)


def test_files_below_a_prefix_are_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "models/writer", {**FILES, "unet/config.json": b"[]"})
    put(bucket, "models/writer2", FILES)
    with cache(tmp_path).hold(model(tmp_path, URL)) as held:
        found = {file.relative_to(held.folder).as_posix() for file in held.folder.rglob("*") if file.is_file()}
        assert found == {*FILES, "unet/config.json"}
        assert len(held.revision or "") == 40


def test_one_object_may_be_named(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "models/writer", FILES)
    with cache(tmp_path).hold(model(tmp_path, f"{URL}/model.safetensors")) as held:
        assert [path.name for path in held.folder.iterdir()] == ["model.safetensors"]


def test_a_pull_takes_what_changed_and_a_card_may_pin_what_it_was(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "models/writer", FILES)
    weights = cache(tmp_path)
    first = weights.hold(model(tmp_path, URL)).revision
    put(bucket, "models/writer", {"config.json": b"[]"})
    assert weights.hold(model(tmp_path, URL)).revision == first
    second = weights.pull(model(tmp_path, URL)).revision
    assert second != first
    assert weights.hold(model(tmp_path, URL, revision=first)).revision == first
    with pytest.raises(NotFound, match=r"the card names"):
        cache(tmp_path / "other").hold(model(tmp_path, URL, revision=first))


def test_bytes_are_read_from_the_middle_and_of_the_listed_object_alone(bucket: Any) -> None:
    put(bucket, "models/writer", {"a.json": bytes(range(200))})
    remote = BucketRemote(URL, timeout_s=5, request_s=30)
    (file,) = remote.listing().files
    with remote.open(file, 150) as (offset, pieces):
        assert (offset, b"".join(pieces)) == (150, bytes(range(150, 200)))
    put(bucket, "models/writer", {"a.json": bytes(200)})
    with pytest.raises(BadInput, match="was changed while it was fetched"), remote.open(file, 0):
        pass


def test_a_partial_fetch_goes_on_where_it_ended(bucket: Any, tmp_path: Path) -> None:
    data = safetensors({"a": (100_000,)}, fill=3)
    put(bucket, "models/writer", {"model.safetensors": data})
    weights, known = cache(tmp_path), model(tmp_path, URL)
    weights.hold(known).close()
    (snapshot,) = weights.folder.glob("*/snapshots/*")
    part = snapshot.parent.parent / "partial" / snapshot.name / "files" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    (snapshot / "files/model.safetensors").rename(part)
    weights.discard(known)
    with part.open("r+b") as stream:
        stream.truncate(60_000)
    told: list[int] = []
    with weights.hold(known, progress=lambda progress: told.append(progress.done_bytes)) as held:
        assert (held.folder / "model.safetensors").read_bytes() == data
    assert told[0] == 60_000


def test_what_is_not_there_or_a_pickle_is_refused(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not there"):
        cache(tmp_path).hold(model(tmp_path, URL))
    with pytest.raises(Unavailable, match="404 Not Found"):
        cache(tmp_path, tries=1).hold(model(tmp_path, "s3://no-such-bucket/x"))
    put(bucket, "models/writer", {"weights.pth": PICKLE})
    with pytest.raises(BadInput, match=r"allow_pickles: \[weights\.pth\]"):
        cache(tmp_path).hold(model(tmp_path, URL))


def test_a_remote_of_dvc_may_be_a_bucket_with_an_endpoint_of_its_own(
    bucket: Any, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "dvc", objects(FILES))
    root = repository(tmp_path / "repo", "s3://studio/dvc", FILES)
    for name in ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    secret = f"['remote \"storage\"']\nendpointurl = {s3_url}\naccess_key_id = a\nsecret_access_key = b\n"
    (root / ".dvc/config.local").write_text(secret)
    with cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer")) as held:
        assert {path.name for path in held.folder.iterdir()} == set(FILES)


def test_artifacts_that_mlflow_keeps_in_a_bucket_come_from_there(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "mlflow/1", FILES)
    with running_tracking() as tracking:
        tracking.versions["writer", "1"] = "s3://studio/mlflow/1"
        with cache(tmp_path, mlflow_url=tracking.url).hold(model(tmp_path, "mlflow:models/writer/1")) as held:
            assert held.revision == "s3://studio/mlflow/1"
