"""Checks of pictures that come from outside; used by graphs before a job is accepted.

The one invariant: a picture that passes can be decoded whole and is within the bounds below.
"""

from pathlib import Path
from typing import Final

from serving.errors import BadInput

MIN_SIDE_PX: Final = 128
MAX_SIDE_PX: Final = 8192
FORMATS: Final = ("PNG", "JPEG", "WEBP")
_SIDES: Final = f"each side must have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"


def check_picture(path: Path, *, field: str, name: str) -> tuple[int, int]:
    """Decode a picture and return its width and height in pixels.

    Args:
        path: the file.
        field: the request's field, for the message.
        name: the file name a person knows, for the message.

    Raises:
        BadInput: not a PNG, JPEG or WebP picture, damaged, too small or too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            _check_size(width, height, field=field, name=name)
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"{name!r} has too many pixels", field=field, fix=_SIDES) from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{name!r} is not a picture", field=field, fix="give a PNG, JPEG or WebP file") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"the picture {name!r} is damaged", field=field, fix="export it again") from error
    return width, height


def _check_size(width: int, height: int, *, field: str, name: str) -> None:
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise BadInput(
            f"{name!r} is {width}x{height} pixels",
            field=field,
            fix=_SIDES,
        )
