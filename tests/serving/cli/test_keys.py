"""Keys are made, listed and removed on the command line."""

import hashlib
import json
import stat

import pytest

from serving.cli.main import run
from serving.edge.key_file import read_keys


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "keys.yaml"


def test_a_new_key_alone_is_on_stdout_and_its_hash_alone_in_the_file(file, capsys):
    assert run(["keys", "new", "anna", "--models", "echo", "--models", "flux-*", "--rate", "5"]) == 0
    printed = capsys.readouterr()
    secret = printed.out.strip()
    assert secret.startswith("rmk_")
    assert len(secret) == 47
    assert secret not in printed.err
    assert secret not in file.read_text()
    (key,) = read_keys(file)
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.grant.name, key.grant.calls, key.grant.models, key.rate) == ("anna", "infer", ("echo", "flux-*"), 5)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_keys_differ_and_are_listed_and_removed(file, capsys):
    for name, calls in (("anna", "infer"), ("root", "control")):
        assert run(["keys", "new", name, "--calls", calls, "--json"]) == 0
    made = [json.loads(text + "}") for text in capsys.readouterr().out.split("}")[:2]]
    assert made[0]["key"] != made[1]["key"]
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "anna", "calls": "infer", "models": ["*"], "rate": None, "use": "commercial"},
        {"name": "root", "calls": "control", "models": ["*"], "rate": None, "use": "commercial"},
    ]
    assert run(["keys", "remove", "anna"]) == 0
    assert run(["keys", "list"]) == 0
    text = capsys.readouterr().out
    assert "root" in text
    assert "anna" not in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["new", "a/b"], "NAME: is missing or no name"),
        (["new", "anna", "--models", "a b"], "--models: is no list of models"),
        (["new", "anna", "--calls", "all"], "--calls: 'all' is not allowed: use one of infer, jobs, control, metrics"),
        (["new", "anna", "--use", "free"], "--use: 'free' is not allowed: use one of commercial, non_commercial"),
        (["new", "anna", "--rate", "2000000"], "--rate: is no number of requests per second"),
        (["new", "anna", "--file", "nowhere/keys.yaml"], "--file: there is no folder"),
        (["remove", "anna"], "cannot be read: No such file"),
        (["list"], "cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_named_and_makes_no_file(file, capsys, arguments, problem):
    assert run(["keys", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not file.exists()


def test_the_setting_names_the_file(file, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REELMESH_EDGE__KEYS_FILE", str(tmp_path / "other.yaml"))
    assert run(["keys", "new", "anna"]) == 0
    assert not file.exists()
    assert len(read_keys(tmp_path / "other.yaml")) == 1


def test_a_key_for_work_that_is_not_commercial_says_so(file, capsys):
    assert run(["keys", "new", "lab", "--use", "non_commercial"]) == 0
    (key,) = read_keys(file)
    assert key.grant.use == "non_commercial"
    capsys.readouterr()
    assert run(["keys", "list"]) == 0
    assert "non_commercial" in capsys.readouterr().out
