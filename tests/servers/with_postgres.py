"""`python -m tests.servers.with_postgres COMMAND...`: a command beside a PostgreSQL of its own; used by `make bench`.

The one invariant: the server waits for the disk as a studio's does, unlike the one of the tests, and ends with the
command.
"""

import subprocess
import sys

from tests.servers.postgres import postgres_server


def main(command: list[str]) -> int:
    """Run the command with ``--postgres ADDRESS`` added; its exit code."""
    with postgres_server(settings={}) as (url, _):
        return subprocess.run([*command, "--postgres", url], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
