"""The hub as a source, through the real huggingface_hub and a hub on this machine."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.hf_api import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput, Forbidden, MissingDependency, NotFound, ReelmeshError, Unavailable
from serving.weights.hub import digest_of
from serving.weights.remote import Digest, RemoteFile, checked
from tests.serving.weights.hub_server import COMMIT, Hub, sibling
from tests.serving.weights.models import FILES, PICKLE, cache, model, safetensors

NAME = "studio/writer"
URI = f"hf:{NAME}"


def test_files_of_a_branch_come_from_the_commit_it_is_at(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {**FILES, "unet/model.safetensors": FILES["model.safetensors"], "README.md": b"#"})
    with cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI, revision="main")) as held:
        assert held.revision == COMMIT
        assert held.download_s > 0
        files = {path.relative_to(held.folder).as_posix() for path in held.folder.rglob("*") if path.is_file()}
        assert files == {*FILES, "unet/model.safetensors"}
        assert (held.folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert {path for path, _, _ in hub.asked} == {f"/{NAME}/resolve/{COMMIT}/{name}" for name in files}


def test_what_is_cached_is_held_without_asking_the_hub_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    weights = cache(tmp_path, hub_url=hub.url)
    weights.hold(model(tmp_path, URI)).close()
    with weights.hold(model(tmp_path, URI)) as held:
        assert held.download_s == 0.0
    assert hub.listed == 1
    with cache(tmp_path, offline=True).hold(model(tmp_path, URI)) as held:
        assert held.revision == COMMIT


def test_a_branch_moves_by_pull_alone_and_only_what_is_new_is_another_snapshot(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    weights, known = cache(tmp_path, hub_url=hub.url), model(tmp_path, URI, revision="main")
    weights.hold(known).close()
    hub.put(NAME, {**FILES, "config.json": b"[]"}, commit="2" * 40)
    assert weights.hold(known).revision == COMMIT
    assert weights.pull(known).revision == "2" * 40
    assert weights.hold(known).revision == "2" * 40
    hub.refs[NAME, "main"] = COMMIT
    asked = len(hub.asked)
    assert weights.pull(known).revision == COMMIT
    assert weights.hold(known).revision == COMMIT
    assert len(hub.asked) == asked


def test_a_commit_that_is_cached_needs_no_hub_for_a_pull(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    weights, known = cache(tmp_path, hub_url=hub.url), model(tmp_path, URI, revision=COMMIT)
    weights.pull(known).close()
    weights.pull(known).close()
    assert hub.listed == 1


def test_only_the_files_that_the_card_wants_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {"a.fp16.safetensors": safetensors({"a": (2,)}), "a.safetensors": b"", "config.json": b"{}"})
    known = model(tmp_path, URI, files=["*.fp16.safetensors", "config.json"])
    with cache(tmp_path, hub_url=hub.url).hold(known) as held:
        assert {path.name for path in held.folder.iterdir()} == {"a.fp16.safetensors", "config.json"}
    with pytest.raises(BadInput, match=r"no file '\*.gguf': there are a.fp16"):
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI, files=["*.gguf"]))


def test_a_revision_that_does_not_exist_is_named_with_where_to_look(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    with pytest.raises(NotFound) as caught:
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI, revision="v9"))
    assert str(caught.value) == (
        f"writer/model.yaml:source.revision: {URI} has no revision 'v9': "
        f"look at {hub.url}/{NAME}/commits/main and {hub.url}/{NAME}/tags"
    )


@pytest.mark.parametrize(
    ("refusal", "kind", "problem"),
    [
        pytest.param((403, "GatedRepo"), Forbidden, "is gated.*accept its terms at http", id="gated"),
        pytest.param((401, "GatedRepo"), Forbidden, "is gated", id="gated, without a token"),
        pytest.param((401, "RepoNotFound"), NotFound, "a private one needs HF_TOKEN", id="private"),
        pytest.param((404, "RepoNotFound"), NotFound, "shows no model studio/writer", id="no such model"),
        pytest.param((503, ""), Unavailable, "answered 503", id="overloaded"),
    ],
)
def test_refusals_say_what_to_do(
    hub: Hub, tmp_path: Path, refusal: tuple[int, str], kind: type[ReelmeshError], problem: str
) -> None:
    hub.refused[NAME] = refusal
    with pytest.raises(kind, match=problem) as caught:
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI))
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_there_is_unavailable(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(Unavailable, match="the hub cannot be reached"):
        cache(tmp_path, hub_url=f"http://127.0.0.1:{free_port}").hold(model(tmp_path, URI))


def test_the_librarys_own_offline_switch_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="unset HF_HUB_OFFLINE to pull"):
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI))


def test_the_token_goes_to_the_hub_and_to_no_host_it_redirects_to(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.cdn = hub.url.replace("127.0.0.1", "localhost")
    (tmp_path / "token").write_text("hf_secret\n")
    weights = cache(tmp_path, hub_url=hub.url, hub_token_file=tmp_path / "token")
    weights.hold(model(tmp_path, URI)).close()
    told = {path.startswith("/cdn/"): token for path, _, token in hub.asked}
    assert told == {False: "Bearer hf_secret", True: None}


def test_a_token_file_that_holds_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two tokens")
    with pytest.raises(BadInput, match=r"weights\.hub_token_file") as caught:
        cache(tmp_path, hub_token_file=tmp_path / "token").hold(model(tmp_path, URI))
    assert "two tokens" not in str(caught.value)


def test_a_pickle_is_refused_by_its_name_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {"pytorch_model.bin": PICKLE, "config.json": b"{}"})
    with pytest.raises(BadInput, match=r"pytorch_model.bin is a pickle.*allow_pickles: \[pytorch_model.bin\]"):
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI))
    assert hub.asked == []


def test_a_pickle_that_hides_is_refused_by_its_content_and_nothing_stays(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {"model.bin": PICKLE + bytes(100), "config.json": b"{}"})
    weights = cache(tmp_path, hub_url=hub.url)
    with pytest.raises(BadInput, match=r"model\.bin is a pickle"):
        weights.hold(model(tmp_path, URI))
    assert weights.locate(model(tmp_path, URI)) is None
    assert not list(weights.folder.rglob("model.bin*"))


def test_a_pickle_that_the_card_names_is_taken(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {"wav2lip.pth": PICKLE, "other.pth": PICKLE})
    known = model(tmp_path, URI, allow_pickles=["wav2lip.pth"])
    with cache(tmp_path, hub_url=hub.url).hold(known) as held:
        assert [path.name for path in held.folder.iterdir()] == ["wav2lip.pth"]


@given(value=st.recursive(st.none() | st.integers() | st.text(max_size=70), st.lists, max_leaves=4))
def test_any_digest_is_taken_or_left(value: Any) -> None:
    found = digest_of(None, value)
    assert found is None or found == Digest("git-sha1", value.lower())


def test_the_library_reads_the_answers_that_the_tests_give() -> None:
    data = bytes(100)
    (read,) = ModelInfo(id=NAME, sha=COMMIT, siblings=[sibling("m", data)]).siblings or []
    assert digest_of(read.lfs, read.blob_id) == Digest("sha256", hashlib.sha256(data).hexdigest())


@given(names=st.lists(st.text(max_size=12) | st.sampled_from(["../a", "a/../b", "/etc", "a//b", "a", "a/b", "c\\d"])))
def test_names_that_lead_elsewhere_never_pass(names: list[str]) -> None:
    files = [RemoteFile(name, 1, "") for name in names]
    try:
        passed = checked(files, URI)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        for file in passed:
            path = Path("/base") / file.name
            assert path.is_relative_to("/base")
            assert ".." not in path.parts


def test_without_the_library_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match=r"pip install 'reelmesh\[models\]'"):
        cache(tmp_path).hold(model(tmp_path, URI))
