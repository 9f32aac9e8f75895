"""The task-level gate: how near a result with an exported part is to the result of the same request by torch."""

from optimize.quality.bounds import BOUNDS, Bounds
from optimize.quality.compare import compare
from optimize.quality.rows import frame_rows, sound_rows, text_rows

__all__ = ["BOUNDS", "Bounds", "compare", "frame_rows", "sound_rows", "text_rows"]
