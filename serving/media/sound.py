"""Sound files made of sound files: a compressed copy, and pieces of a recording; used by the graphs.

The one invariant: equal inputs give equal bytes, and no sample moves in time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serving.media.ffmpeg import REPEATABLE, SAFE_INPUT, run_ffmpeg

AAC: Final = ("-c:a", "aac", "-b:a", "192k", "-ar", "48000", "-ac", "2")
"""The compressed sound of everything the mesh makes, in films and alone."""

PIECE_RATE_HZ: Final = 16_000
"""What models that hear speech are trained on; pieces are for them, not for people."""


def m4a_arguments(source: Path, target: Path) -> list[str]:
    """Arguments that write a stereo M4A whose index stands first, so that it plays while it arrives."""
    return ["-i", f"file:{source}", "-vn", *AAC, *REPEATABLE, "-movflags", "+faststart", "-f", "mp4", str(target)]


def piece_arguments(source: Path, spans: Sequence[tuple[float, float]], targets: Sequence[Path]) -> list[str]:
    """Arguments that cut a recording into mono 16-bit WAV files in one pass.

    Args:
        source: audio or video that came from a client.
        spans: start and end of every piece in seconds; silence follows where the sound ends earlier.
        targets: a file for each piece.
    """
    arguments = [*SAFE_INPUT, "-i", f"file:{source}"]
    for (start_s, end_s), target in zip(spans, targets, strict=True):
        cut = (
            f"aresample={PIECE_RATE_HZ}:async=1:first_pts=0,apad=whole_dur={end_s:.6f}"
            f",atrim={start_s:.6f}:{end_s:.6f},asetpts=PTS-STARTPTS"
        )
        arguments += [
            "-map", "0:a:0", "-af", cut, "-c:a", "pcm_s16le", "-ac", "1", *REPEATABLE, "-f", "wav", str(target),
        ]  # fmt: skip
    return arguments


async def encode_m4a(source: Path, target: Path) -> None:
    """Write the compressed copy of a mastered WAV; raises EngineFailed."""
    await run_ffmpeg(m4a_arguments(source, target))


async def cut_pieces(source: Path, spans: Sequence[tuple[float, float]], targets: Sequence[Path]) -> None:
    """Cut a recording; see :func:`piece_arguments`; raises EngineFailed."""
    await run_ffmpeg(piece_arguments(source, spans, targets))
