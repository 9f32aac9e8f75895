"""Draws the portraits of the podcast example: ``python examples/podcast/portraits/draw.py [folder]``.

The one invariant: the pictures are made from this source alone (needs resvg-py), so anybody may change and redraw them.
"""

import io
import sys
from pathlib import Path

import resvg_py
from asha import asha
from PIL import Image
from ravi import ravi

WIDTH, HEIGHT = 960, 1080


def main(folder: Path) -> None:
    """Write ``asha.png`` and ``ravi.png`` into ``folder``."""
    for name, person in (("asha", asha), ("ravi", ravi)):
        image = resvg_py.svg_to_bytes(svg_string=person(WIDTH, HEIGHT), width=WIDTH, height=HEIGHT)
        target = folder / f"{name}.png"
        Image.open(io.BytesIO(bytes(image))).convert("RGB").save(target, optimize=True)
        sys.stdout.write(f"{target}: {target.stat().st_size // 1024} kB\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
