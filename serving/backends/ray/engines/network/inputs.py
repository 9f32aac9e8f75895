"""Pictures, sound and texts that requests bring, read and checked for networks; used by engines in ``prepare``.

The one invariant: what comes back is finite, within bounds and of the shape that is said; what is not names its field.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.errors import BadInput
from serving.media.ffmpeg import decode_audio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

LEAST_PX: Final = 16
MOST_PX: Final = 8192
FORMATS: Final = ("PNG", "JPEG", "WEBP")


def read_picture(path: Path, field: str, *, least_px: int = LEAST_PX, most_px: int = MOST_PX) -> "Image":
    """Decode a PNG, JPEG or WebP picture as RGB, upright as its EXIF data say.

    Args:
        path: the file.
        field: of the request, for messages.
        least_px: shortest side.
        most_px: longest side.

    Raises:
        BadInput: it is none, is damaged, or has a side out of bounds.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            if min(width, height) < least_px or max(width, height) > most_px:
                fix = f"each side must have {least_px} to {most_px} pixels"
                raise BadInput(f"the picture is {width}x{height} pixels", field=field, fix=fix)
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput("the picture has too many pixels", field=field, fix=f"at most {most_px} a side") from error
    except UnidentifiedImageError as error:
        raise BadInput("this is not a picture", field=field, fix="give a PNG, JPEG or WebP file") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput("the picture is damaged", field=field, fix="export it again") from error


def read_sound(path: Path, field: str, rate_hz: int, *, least_s: float = 0.05, most_s: float) -> "NDArray[np.float32]":
    """Decode the first sound of any medium; for worker threads.

    Args:
        path: the file.
        field: of the request, for messages.
        rate_hz: sample rate of the answer.
        least_s: shortest sound.
        most_s: longest sound.

    Returns:
        float32 ``(samples,)``, mono, -1 to 1.

    Raises:
        BadInput: it holds no sound, too little, or samples that are no numbers.
        TooLarge: it is longer than ``most_s``.
    """
    import numpy as np

    samples = asyncio.run(decode_audio(path, rate_hz, max_s=most_s))
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples)))
        raise BadInput(
            f"the sound holds samples that are no numbers, the first at {first / rate_hz:.3f} s",
            field=field,
            fix="export it again as 16-bit WAV",
        )
    if samples.size < least_s * rate_hz:
        raise BadInput(
            f"the sound is {samples.size / rate_hz:.3f} s long", field=field, fix=f"give at least {least_s:g} s"
        )
    return samples


def check_tokens(count: int, most: int, field: str) -> None:
    """Refuse a text that the tokenizer would cut in silence.

    Raises:
        BadInput: says how many tokens there are and how many the model reads.
    """
    if count > most:
        raise BadInput(
            f"the text has {count} tokens, and the model reads {most}",
            field=field,
            fix=f"shorten it to about {max(1, int(100 * most / count))} % of its length",
        )


def check_sides(width: int, height: int, multiple: int, least_px: int = LEAST_PX) -> None:
    """Refuse a size that the network cannot make.

    Raises:
        BadInput: a side is no multiple, or too short.
    """
    for field, value in (("width", width), ("height", height)):
        if value % multiple or value < least_px:
            nearest = max(least_px, round(value / multiple) * multiple)
            raise BadInput(
                f"{value} pixels: the model makes multiples of {multiple} from {least_px} on",
                field=field,
                fix=f"use {nearest}",
            )
