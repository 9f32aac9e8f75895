"""`reelmesh demo` as `make demo` runs it: exit code, files, and what it says of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT
from tests.flows.test_pipelines import SHORT_SCRIPT, changed

pytestmark = pytest.mark.timeout(400)


def test_the_demo_makes_checked_files_and_reports_where_the_time_went(tmp_path: Path) -> None:
    spec = changed("podcast/podcast.yaml", tmp_path, script=SHORT_SCRIPT)
    command = [sys.executable, "-m", "serving.cli.main", "demo", "--json", "--home", str(tmp_path / "home")]
    done = subprocess.run(
        [*command, "--spec", str(spec), "--out", str(tmp_path / "out")],
        cwd=ROOT,
        # A demo's mesh is nobody else's, so it asks for none of the keys that a shell may be set up for.
        env=os.environ | {"REELMESH_EDGE__KEYS_FILE": str(tmp_path / "keys.yaml")},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(check["ok"] for check in report["checks"])
    assert {Path(path).suffix for path in report["files"].values()} == {".mp4", ".srt", ".vtt", ".ass", ".jpg", ".json"}
    assert all(Path(path).stat().st_size > 0 for path in report["files"].values())
    assert report["real_time_factor"] == pytest.approx(report["job_s"] / report["media_s"], abs=0.01)
    assert {"voices", "lip_sync", "compose"} <= set(report["stages"])


def test_a_demo_of_a_broken_podcast_starts_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "broken.yaml"
    spec.write_text("title: [unclosed")
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli.main", "demo", "--spec", str(spec), "--home", str(tmp_path / "home")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "broken.yaml" in done.stderr
    assert not (tmp_path / "home").exists()
