"""The entry, `python bench/gpu` or `python -m bench.gpu`: the command of bench.gpu.command.

The one invariant: the folder runs by its path too, wherever `bench/gpu` was copied to, with nothing installed.
"""

import sys
from pathlib import Path

if not __package__:
    # Run by its path: Python put the folder itself on the path of imports, where its package is not to be found.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from bench.gpu.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
