"""All the sources that a model needs: its own, its parts', its adapters'; used by `reelmesh models pull` and verify.

The one invariant: what is listed here is what an engine of the model holds, under the same keys of the cache.
"""

from typing import NamedTuple

from serving.repository.model import Model, Source
from serving.weights.cache import has_weights


class Needed(NamedTuple):
    """One source of a model.

    Args:
        label: ``writer``, or ``writer parts.controlnet`` for people.
        field: where it stands in model.yaml: ``source``, ``parts.controlnet.source``.
        model: the model with that source, as engines hold it.
    """

    label: str
    field: str
    model: Model


def sources_of(model: Model) -> list[Needed]:
    """Every source that files come from, the model's own first; empty where all are records."""
    card = model.card
    further: dict[str, Source] = {f"parts.{name}": part.source for name, part in card.parts.items()}
    further |= {f"adapters.{name}": adapter.source for name, adapter in card.adapters.items()}
    found = [Needed(model.name, "source", model)]
    found += [
        Needed(f"{model.name} {where}", f"{where}.source", model.with_source(source))
        for where, source in further.items()
    ]
    return [needed for needed in found if has_weights(needed.model)]
