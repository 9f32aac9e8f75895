"""Has the mesh make the example podcast and reads where the time went; used by loadtests.bench.

The one invariant: the figures are the job's own record, read through the public API after the job has
completed.
"""

import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Final

from loadtests.bench.mesh import reelmesh
from loadtests.bench.results import Podcast, StageTime

EXAMPLE: Final = Path("examples/podcast/podcast.yaml")
TIMEOUT_S: Final = 600


class PodcastFailed(Exception):
    """The job did not complete; the text says why."""


def make_podcast(host: str, root: Path) -> tuple[Podcast, str]:
    """Submit the example by `reelmesh submit` and read the record of the job; its figures, and its id.

    Raises:
        PodcastFailed: the job failed, or took longer than :data:`TIMEOUT_S` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="reelmesh-bench-") as folder:
        command = [*reelmesh(), "submit", "podcast_video", str(root / EXAMPLE), "--host", host, "--json"]
        try:
            done = subprocess.run(
                [*command, "--out", folder], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise PodcastFailed(f"no podcast within {TIMEOUT_S} s") from error
    if done.returncode:
        raise PodcastFailed((done.stderr or done.stdout)[-500:])
    with urllib.request.urlopen(f"{host}/v1/jobs?type=podcast_video&limit=1", timeout=30) as answer:  # noqa: S310
        newest = json.load(answer)["data"][0]
    with urllib.request.urlopen(f"{host}{newest['url']}", timeout=30) as answer:  # noqa: S310
        return of_record(json.load(answer)), newest["id"]


def of_record(job: dict[str, Any]) -> Podcast:
    """The figures of a completed job."""
    stages = [
        StageTime(
            name=stage["name"],
            seconds=round(stage["ended_at"] - stage["started_at"], 3),
            parts=stage["parts"],
            models=stage["models"],
        )
        for stage in job["stages"]
        if stage["started_at"] is not None and stage["ended_at"] is not None
    ]
    facts = job["output"]["facts"]
    return Podcast(
        seconds=round(job["finished_at"] - job["created_at"], 3),
        waiting_s=round(job["started_at"] - job["created_at"], 3),
        programme_s=float(facts["duration_s"]),
        stages=stages,
    )
