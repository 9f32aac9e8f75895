"""A mesh that is killed and started again goes on with its jobs, and leaves no process behind."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.flows.conftest import start_mesh, stop_mesh, tree, wait_until_gone
from tests.flows.test_pipelines import changed, reelmesh

pytestmark = pytest.mark.timeout(400)

SCRIPT = "\n".join(
    f"{name}: This is line {number} of a longer talk." for number in range(4) for name in ("Asha", "Ravi")
)


def test_a_killed_mesh_leaves_no_process_and_its_jobs_go_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = start_mesh(home)
    spec = changed("podcast/podcast.yaml", tmp_path, script=SCRIPT, video={"width": 640, "height": 360, "fps": 12})
    job_id = json.loads(reelmesh(first, "submit", "podcast_video", str(spec), "--no-wait", "--json").stdout)["id"]

    def stages() -> dict[str, dict[str, object]]:
        job = json.loads(reelmesh(first, "jobs", "show", job_id, "--json").stdout)
        return {stage["name"]: stage for stage in job["stages"]}

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and stages().get("lip_sync", {}).get("state") != "running":
        time.sleep(0.2)
    before = stages()
    assert before["voices"]["state"] == "done"
    processes = tree(first.process.pid)
    assert len(processes) > 5
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    wait_until_gone(processes)

    second = start_mesh(home)
    try:
        watched = reelmesh(second, "jobs", "watch", job_id, "--out", str(tmp_path / "out"), "--json")
        assert watched.returncode == 0, watched.stderr
        job = json.loads(watched.stdout)
        assert job["state"] == "completed"
        after = {stage["name"]: stage for stage in job["stages"]}
        for name in ("faces", "voices", "features"):
            assert after[name]["started_at"] == before[name]["started_at"], f"{name} ran again"
            assert after[name]["tries"] == 1
        processes = tree(second.process.pid)
    finally:
        assert stop_mesh(second) == 0
    wait_until_gone(processes)
