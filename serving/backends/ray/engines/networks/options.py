"""Numbers that a card gives to an engine; read when it is loaded.

The one invariant: what is out of bounds is refused by its place in model.yaml, before anything runs.
"""

from serving.errors import BadInput
from serving.repository.model import Model


def whole_number(model: Model, name: str, default: int, most: int) -> int:
    """``options.<name>`` of the card, from 1 to ``most``.

    Raises:
        BadInput: it is something else.
    """
    wanted = model.card.options.get(name, default)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= most:
        raise BadInput(
            f"{wanted!r} is out of bounds",
            field=f"{model.name}/model.yaml:options.{name}",
            fix=f"give a whole number from 1 to {most}",
        )
    return wanted
