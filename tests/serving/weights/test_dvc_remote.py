"""A path that DVC tracks as a source: repositories in DVC's own formats, with a folder as the remote."""

from pathlib import Path

import pytest

from serving.errors import BadInput, NotFound, ReelmeshError, Unsupported
from tests.serving.weights.dvc_repository import listing, md5, objects, repository
from tests.serving.weights.models import FILES, cache, model, write

TRACKED = {**FILES, "sub/a.json": b"[]"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "storage", {**objects(TRACKED), f"files/md5/{md5(b'{}')[:2]}/{md5(b'{}')[2:]}": b"{}"})
    return repository(tmp_path / "repo", "../../storage", TRACKED)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param("models/writer", set(TRACKED), id="a folder"),
        pytest.param("models/writer.dvc", set(TRACKED), id="by its .dvc file"),
        pytest.param("models/writer/sub", {"a.json"}, id="a folder in it"),
        pytest.param("models/writer/config.json", {"config.json"}, id="a file in it"),
        pytest.param("out", set(TRACKED), id="a folder that a stage made"),
        pytest.param("out/sub", {"a.json"}, id="a folder in that"),
        pytest.param("single.json", {"single.json"}, id="a file that a stage made"),
    ],
)
def test_what_is_tracked_comes_from_the_remote(root: Path, tmp_path: Path, path: str, names: set[str]) -> None:
    with cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/{path}")) as held:
        found = {file.relative_to(held.folder).as_posix(): file for file in held.folder.rglob("*") if file.is_file()}
        assert set(found) == names
        assert held.revision == (md5(b"{}") if path == "single.json" else f"{md5(listing(TRACKED))}.dir")


def test_a_path_may_begin_at_the_models_folder(root: Path, tmp_path: Path) -> None:
    known = model(tmp_path / "repo" / "cards", "dvc:../../models/writer")
    with cache(tmp_path).hold(known) as held:
        assert (held.folder / "model.safetensors").read_bytes() == TRACKED["model.safetensors"]


def test_the_checkouts_own_cache_is_looked_at_first(root: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(root / ".dvc" / "cache")
    cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer")).close()
    (root / ".dvc" / "config").write_text("")
    cache(tmp_path / "other").hold(model(tmp_path, f"dvc:{root}/models/writer")).close()


def test_the_layout_of_dvc_2_is_read_too(root: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "storage/files/md5").iterdir():
        folder.rename(tmp_path / "storage" / folder.name)
    cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer")).close()


@pytest.mark.parametrize(
    ("path", "kind", "problem"),
    [
        pytest.param("repo/nothing", NotFound, "is not tracked by DVC", id="untracked"),
        pytest.param(
            "repo/models/writer/x.json", NotFound, "is not tracked by DVC", id="untracked in a tracked folder"
        ),
        pytest.param("elsewhere", NotFound, "is in no DVC repository", id="no repository"),
    ],
)
def test_what_is_not_tracked_is_named(
    root: Path, tmp_path: Path, path: str, kind: type[ReelmeshError], problem: str
) -> None:
    with pytest.raises(kind, match=problem):
        cache(tmp_path).hold(model(tmp_path, f"dvc:{tmp_path}/{path}"))


def test_bytes_that_were_not_pushed_are_named_with_the_command(root: Path, tmp_path: Path) -> None:
    digest = md5(TRACKED["model.safetensors"])
    (tmp_path / f"storage/files/md5/{digest[:2]}/{digest[2:]}").unlink()
    with pytest.raises(NotFound, match=f"does not have {digest}: run `dvc push`"):
        cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer"))


def test_a_damaged_listing_is_refused(root: Path, tmp_path: Path) -> None:
    digest = md5(listing(TRACKED))
    (tmp_path / f"storage/files/md5/{digest[:2]}/{digest[2:]}.dir").write_bytes(b"[]")
    with pytest.raises(BadInput, match="is damaged"):
        cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer"))


def test_other_remotes_are_refused_with_a_way_round(root: Path, tmp_path: Path) -> None:
    (root / ".dvc/config.local").write_text("['remote \"storage\"']\n    url = ssh://host/path\n")
    with pytest.raises(Unsupported, match="ssh:, which is not read: `dvc pull` there"):
        cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer"))


def test_a_card_that_names_another_state_is_refused(root: Path, tmp_path: Path) -> None:
    digest = f"{md5(listing(TRACKED))}.dir"
    cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer", revision=digest)).close()
    with pytest.raises(NotFound, match=r"model.yaml:source\.revision"):
        cache(tmp_path).hold(model(tmp_path, f"dvc:{root}/models/writer", revision="0" * 32))
