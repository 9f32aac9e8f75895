"""Keys change while a real HAProxy runs."""

import asyncio
import hashlib
import time

import pytest
from structlog.testing import capture_logs

from serving.edge.key_file import Key, remove_key
from serving.edge.key_maps import BEGINNINGS_MAP, KEYS_MAP, MODELS_MAP, key_maps
from serving.errors import BadInput
from serving.protocol.keys import Grant
from tests.serving.edge.guarded import Guarded

INFER = "/v2/models/echo/infer"
WITHIN_S = 2.0


@pytest.fixture
async def guarded(settings, tmp_path):
    (tmp_path / "keys").mkdir()
    mesh = Guarded(settings, tmp_path / "keys" / "keys.yaml")
    mesh.anna = mesh.add("anna")
    async with mesh.running():
        yield mesh


async def status_within(mesh, key, status, path=INFER):
    """Wait until a key gets this status; returns how long that took."""
    began = time.monotonic()
    while (await mesh.post(path, key)).status_code != status:
        assert time.monotonic() - began < WITHIN_S
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_a_new_key_works_and_a_removed_one_does_not(guarded):
    ben = guarded.add("ben", models=("echo",))
    await status_within(guarded, ben, 200)
    assert (await guarded.post("/v2/models/other/infer", ben)).status_code == 403
    remove_key(guarded.file, "anna")
    await status_within(guarded, guarded.anna, 401)
    assert (await guarded.post(INFER, ben)).status_code == 200


async def test_what_a_key_may_do_changes_with_the_file(guarded):
    guarded.file.write_text(guarded.file.read_text() + "  models: [other]\n")
    await status_within(guarded, guarded.anna, 403)
    guarded.file.write_text(guarded.file.read_text().replace("[other]", "['ec*']\n  rate: 1"))
    await status_within(guarded, guarded.anna, 200)
    await status_within(guarded, guarded.anna, 429)


async def test_a_broken_file_keeps_the_keys_and_says_so_once(guarded):
    good = guarded.file.read_text()
    with capture_logs() as logged:
        guarded.file.write_text("- name: anna\n  sha256: key-of-anna\n")
        await asyncio.sleep(1.7)
        assert (await guarded.post(INFER, guarded.anna)).status_code == 200
        guarded.file.unlink()
        await asyncio.sleep(1.2)
        assert (await guarded.post(INFER, guarded.anna)).status_code == 200
        guarded.file.write_text(good.replace('"anna"', '"anne"'))
        await asyncio.sleep(1.2)
    assert (await guarded.post(INFER, guarded.anna)).headers["got-x-reelmesh-key"] == "anne"
    problems = [line["problem"] for line in logged if line["event"] == "edge_keys_refused"]
    assert len(problems) == 2
    assert problems[0].startswith(f"{guarded.file}:2:[0].sha256: is not 64 lower-case hex digits")
    assert "key-of-anna" not in str(logged)


async def test_no_key_is_written_anywhere(guarded):
    await guarded.post(INFER, guarded.anna)
    await guarded.post(INFER, "key-of-nobody")
    written = [path for path in guarded.settings.home.rglob("*") if path.is_file() and b"key-of-" in path.read_bytes()]
    assert written == []


async def test_a_haproxy_that_died_comes_back_with_the_keys_of_the_file(guarded):
    ben = guarded.add("ben")
    await status_within(guarded, ben, 200)
    guarded.edge._haproxy._child.kill()
    await asyncio.sleep(0.3)
    assert (await guarded.post(INFER, ben)).status_code == 200
    assert (await guarded.post(INFER)).status_code == 401


async def test_a_wrong_file_refuses_the_start(settings, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("- name: anna\n")
    with pytest.raises(BadInput, match=r"keys\.yaml:1:\[0\]\.sha256"):
        async with Guarded(settings, file).running():
            pass


async def test_thousands_of_keys_are_no_trouble(guarded):
    hashes = [hashlib.sha256(f"key-of-k{number}".encode()).hexdigest() for number in range(5000)]
    keys = [Key(found, Grant(f"k{number}", "infer", ("echo", "b*"))) for number, found in enumerate(hashes)]
    guarded.file.write_text("".join(key.text() for key in keys))
    began = time.monotonic()
    while (await guarded.post(INFER, "key-of-k4999")).status_code != 200:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.05)
    for number in (0, 1, 2500):
        assert (await guarded.post(INFER, f"key-of-k{number}")).status_code == 200
    assert (await guarded.post("/v2/models/other/infer", "key-of-k1")).status_code == 403
    assert (await guarded.post(INFER, guarded.anna)).status_code == 401


def test_maps_follow_from_the_keys():
    keys = [
        Key("0" * 64, Grant("anna", "infer")),
        Key("1" * 64, Grant("ben", "control", ("a", "b*"), "non_commercial"), 7),
    ]
    maps = key_maps(keys)
    lines = [f"{'0' * 64} anna/0/infer/*/commercial", f"{'1' * 64} ben/7/control/a,b*/non_commercial"]
    assert maps[KEYS_MAP] == lines
    assert maps[MODELS_MAP] == ["ben/a 1"]
    assert maps[BEGINNINGS_MAP] == ["ben/b 1"]
    assert list(maps)[-1] == KEYS_MAP
