"""A model's own bounds on its requests; asked by the router before a request leaves, and by replicas.

The one invariant: what passes is within every bound of the model's card.
"""

from pydantic import BaseModel

from serving.errors import BadInput
from serving.repository.model import ModelCard


def check_limits(card: ModelCard, request: BaseModel) -> None:
    """Compare number and length fields with the card's ``limits``.

    Raises:
        BadInput: naming the field, its value and the bound.
    """
    for field, bound in card.limits.items():
        value = getattr(request, field, None)
        size = len(value) if isinstance(value, str | list) else value
        if isinstance(size, int | float) and size > bound:
            unit = " characters" if isinstance(value, str) else " items" if isinstance(value, list) else ""
            raise BadInput(f"{size:g}{unit} is over the model's bound", field=field, fix=f"use at most {bound:g}")


def within_limits(card: ModelCard, request: BaseModel) -> bool:
    """Whether :func:`check_limits` lets the request pass."""
    try:
        check_limits(card, request)
    except BadInput:
        return False
    return True
