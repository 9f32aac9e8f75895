"""How many threads the reference and the export each get, so that a comparison is one of programs and not of
pools.
"""

import os
from typing import Final

THREADS: Final = max(1, min(4, os.cpu_count() or 1))
