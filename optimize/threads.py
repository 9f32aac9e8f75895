"""How many threads the reference and the export each get; used by the gates and by recipes.

The one invariant: both get the same, so that a comparison is one of programs and not of thread pools.
"""

import os
from typing import Final

THREADS: Final = max(1, min(4, os.cpu_count() or 1))
