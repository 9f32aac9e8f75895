"""The entry, `python bench/gpu` or `python -m bench.gpu`: the command of bench.gpu.command.

The one invariant: the folder runs by its path too, wherever it was copied to as `gpu`, with nothing of the project
there and whatever else is called `bench` on that machine.
"""

import sys
from pathlib import Path
from types import ModuleType

if not __package__:
    # Run by its path: Python put the folder itself on the path of imports, where its package is not to be found.
    folder = Path(__file__).resolve().parent
    sys.path = [place for place in sys.path if Path(place).resolve() != folder]
    sys.modules["bench"] = ModuleType("bench")
    sys.modules["bench"].__path__ = [str(folder.parent)]

from bench.gpu.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
