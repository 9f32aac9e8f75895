"""The key file says exactly what is wrong with it, and never a key."""

import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.edge.key_file import MAX_FILE_BYTES, Key, add_key, parse_keys, read_keys, remove_key
from serving.errors import BadInput
from serving.protocol.keys import Grant

HASH = hashlib.sha256(b"anna").hexdigest()
OTHER = hashlib.sha256(b"ben").hexdigest()
SECRET = "rmk_" + "s" * 43


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.yaml"


def test_an_entry_needs_a_name_and_a_hash_and_may_say_more(file):
    text = f"- name: anna\n  sha256: {HASH}\n- {{name: b, sha256: {OTHER}, models: [a, b*], calls: control, rate: 5}}\n"
    assert parse_keys(text, file) == (
        Key(HASH, Grant("anna", "infer")),
        Key(OTHER, Grant("b", "control", ("a", "b*")), 5),
    )
    (research,) = parse_keys(f"- {{name: c, sha256: {HASH}, use: non_commercial}}", file)
    assert research.grant.use == "non_commercial"
    assert parse_keys(research.text(), file) == (research,)
    assert parse_keys("", file) == parse_keys("# none yet\n", file) == ()


ENTRY = f"- name: anna\n  sha256: {HASH}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"name: {SECRET}", ":1: is no list: begin each key with", id="no list"),
        pytest.param("- name: [", ":1: not YAML", id="no YAML"),
        pytest.param(f"- {SECRET}", ":1:[0]: is no key: write name", id="a key itself"),
        pytest.param(f"{ENTRY}  {SECRET}: 1", ":1:[0]: no such field: use name", id="a key as a field"),
        pytest.param(f"{ENTRY}  modells: []", ":3:[0].modells: no such field", id="typo"),
        pytest.param(f"- sha256: {HASH}", ":1:[0].name: is missing or no name", id="no name"),
        pytest.param(f"- name: a/b\n  sha256: {HASH}", ":1:[0].name: is missing or no name", id="slash"),
        pytest.param(f"- name: anna\n  sha256: {SECRET}", ":2:[0].sha256: is not 64 lower-case hex", id="the key"),
        pytest.param("- name: anna", ":1:[0].sha256: is not 64 lower-case hex digits", id="no hash"),
        pytest.param(f"{ENTRY}  models: echo", ":3:[0].models: is no list of models", id="models"),
        pytest.param(f"{ENTRY}  models: []", ":3:[0].models: is no list of models", id="no models"),
        pytest.param(f"{ENTRY}  models: ['a*b']", ":3:[0].models: is no list of models", id="star inside"),
        pytest.param(f"{ENTRY}  models: ['a b']", ":3:[0].models: is no list of models", id="blank"),
        pytest.param(f"{ENTRY}  models: [{', '.join(['m' * 60] * 9)}]", ":3:[0].models: is over 512", id="many"),
        pytest.param(f"{ENTRY}  calls: all", ":3:[0].calls: is not allowed: use one of infer, jobs", id="calls"),
        pytest.param(f"{ENTRY}  calls: [infer]", ":3:[0].calls: is not allowed", id="list of calls"),
        pytest.param(f"{ENTRY}  use: free", ":3:[0].use: is not allowed: use one of commercial, non_comm", id="use"),
        pytest.param(f"{ENTRY}  use: [commercial]", ":3:[0].use: is not allowed", id="list of uses"),
        pytest.param(f"{ENTRY}  rate: 0", ":3:[0].rate: is no number of requests per second", id="zero"),
        pytest.param(f"{ENTRY}  rate: 1.5", ":3:[0].rate: is no number of requests", id="fraction"),
        pytest.param(f"{ENTRY}  rate: true", ":3:[0].rate: is no number of requests", id="bool"),
        pytest.param(f"{ENTRY}- name: anna\n  sha256: {OTHER}", ":3:[1].name: is also that of line 1", id="twice"),
        pytest.param(f"{ENTRY}- name: ben\n  sha256: {HASH}", ":4:[1].sha256: is also that of line 2", id="hash"),
        pytest.param("[" * 50_000, ":1: nested too deeply", id="deep"),
        pytest.param("- &a name\n- *a", ":1: an alias", id="alias"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_never_shows_a_key(file, text, expected):
    with pytest.raises(BadInput) as caught:
        parse_keys(text, file)
    assert str(caught.value).startswith(f"{file}{expected}")
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_used_is_refused(file, tmp_path):
    with pytest.raises(BadInput, match=r"keys\.yaml: cannot be read: No such file or directory: make it with"):
        read_keys(file)
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        read_keys(tmp_path)
    file.write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not UTF-8 at byte 0"):
        read_keys(file)
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadInput, match="larger than 4 MiB"):
        read_keys(file)


def key(number):
    return Key(hashlib.sha256(str(number).encode()).hexdigest(), Grant(f"k{number}", "infer", ("a", "b*")), 5)


def test_keys_are_added_and_removed_and_the_rest_of_the_file_stays(file):
    file.write_text(f"# ours\n- name: anna  # the first\n  sha256: {HASH}\n\n# of a guest\n")
    add_key(file, key(1))
    add_key(file, key(2))
    assert [found.grant.name for found in read_keys(file)] == ["anna", "k1", "k2"]
    assert "# ours\n- name: anna  # the first\n" in file.read_text()
    remove_key(file, "anna")
    assert file.read_text().startswith('# ours\n# of a guest\n- name: "k1"\n')
    add_key(file, Key(OTHER, Grant("0x10", "infer", ("1", "no*"))))
    for name in ("k1", "k2", "0x10"):
        remove_key(file, name)
    assert read_keys(file) == ()


@pytest.mark.parametrize("text", [f"[{{name: anna, sha256: {HASH}}}]", f"  - {{name: anna, sha256: {HASH}}}\n"])
def test_a_file_in_another_style_is_written_anew(file, text):
    file.write_text(text)
    add_key(file, key(1))
    remove_key(file, "anna")
    assert read_keys(file) == (key(1),)


def test_a_new_file_is_its_owners_alone(file):
    add_key(file, key(1))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_who_may_read_a_file_stays_as_it_was(file):
    add_key(file, key(1))
    file.chmod(0o640)
    add_key(file, key(2))
    remove_key(file, "k1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_name_is_used_once_and_an_unknown_one_is_not_removed(file, tmp_path):
    add_key(file, key(1))
    with pytest.raises(BadInput, match="has a key named 'k1' already: choose another"):
        add_key(file, key(1))
    with pytest.raises(BadInput, match="has no key of that name: use one of k1"):
        remove_key(file, "k2")
    with pytest.raises(BadInput, match="there is no folder"):
        add_key(tmp_path / "nowhere" / "keys.yaml", key(1))


def test_keys_added_at_the_same_time_are_all_there(file):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_key(file, key(number)), range(16)))
    assert len(read_keys(file)) == 16
