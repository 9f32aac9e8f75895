import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT


@pytest.mark.flow
@pytest.mark.timeout(300)
def test_the_rendered_configuration_runs_on_a_cluster_of_the_rendered_shape(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    """Seen: a null route left every proxy, and so every pod, unready; loopback addresses do not reach across pods."""
    command = [sys.executable, "-m", "tests.k8s.deployed", str(tmp_path), *map(str, free_ports(5))]
    ran = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, check=False, text=True)
    assert ran.returncode == 0, ran.stderr[-4000:]
    seen = json.loads(ran.stdout.splitlines()[-1])
    groups = seen.pop("groups")
    assert {name for name, group in groups.items() if group == "gateway"} == {"edge", "gateway"}
    assert set(groups.values()) == {"gateway", "models"}
    answers = [100, 80, pytest.approx(50_000, rel=0.2)]
    assert seen == {"proxies": ["HEALTHY"] * 3, "probe": "success", "http": answers, "grpc": answers}
