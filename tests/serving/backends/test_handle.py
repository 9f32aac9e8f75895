"""What happens in a replica when its caller at the other end of a Serve handle goes away."""

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


async def test_work_ends_within_two_seconds_of_a_cancel_a_deadline_and_a_kill(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "image_to_video").symlink_to(ROOT / "model_repository/image_to_video")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.serving.backends.handled", str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(out.splitlines()[-1])
    assert seen.pop("replicas") == 1
    assert {name: how for name, (_, how) in seen.items()} == {
        "cancel": "CancelledError",
        "deadline": "DeadlineExceeded",
        "kill": "Unavailable",
    }
    assert all(seconds < 2 for seconds, _ in seen.values()), seen
