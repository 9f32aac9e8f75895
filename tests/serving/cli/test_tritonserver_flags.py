"""tritonserver's flags: each is one of `reelmesh serve` too, or has a line that says what to use instead."""

import re
import subprocess

import typer
from typer.main import get_command

from serving.backends.triton.command import environment
from serving.backends.triton.install import find_tritonserver
from serving.cli.serve import serve
from serving.cli.tritonserver_flags import INSTEAD
from serving.settings import Settings


def own_flags() -> set[str]:
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    return {flag for parameter in get_command(app).params for flag in parameter.opts} | {"--help"}


def test_every_flag_of_the_installed_tritonserver_is_served_or_answered() -> None:
    install = find_tritonserver(Settings().resolved())
    told = subprocess.run(
        [install.binary, "--help"], capture_output=True, text=True, timeout=60, check=False,
        env=environment(install, None, gpus=0),
    )  # fmt: skip
    flags = set(re.findall(r"^\s+(--[a-z0-9-]+)", told.stdout + told.stderr, re.MULTILINE))
    assert len(flags) > 80
    assert flags - own_flags() == set(INSTEAD)
