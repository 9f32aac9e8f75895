"""The check of where a model's weights come from (``source`` of model.yaml); called by repository.checks.

The one invariant: an address that passes is one that the weights cache can take apart; whether anything is there is
found out by `reelmesh models pull`.
"""

from collections.abc import Iterator

from serving.errors import BadInput
from serving.repository.findings import Finding
from serving.repository.model import ModelCard, Source
from serving.repository.places import at_card
from serving.repository.read import RawModel
from serving.repository.source import FETCHED, read_address


def check_sources(raw: RawModel, card: ModelCard) -> Iterator[Finding]:
    """The sources of the model, of its parts and of its adapters."""
    yield from _check_source(raw, card.source, "source")
    for name, part in card.parts.items():
        yield from _check_source(raw, part.source, f"parts.{name}.source")
    for name, adapter in card.adapters.items():
        yield from _check_source(raw, adapter.source, f"adapters.{name}.source")


def _check_source(raw: RawModel, source: Source, where: str) -> Iterator[Finding]:
    """The form of the address, and fields that it leaves without effect."""
    try:
        kind = read_address(source.uri).kind
    except BadInput as error:
        yield at_card(raw, f"{where}.uri", error.problem, error.fix or "correct it")
        return
    if source.copied and kind != "file":
        yield at_card(raw, f"{where}.copied", f"has no effect on a {kind}: source", "remove it", warning=True)
    if kind in FETCHED or kind == "file":
        return
    for field in ("files", "allow_pickles"):
        if getattr(source, field):
            yield at_card(raw, f"{where}.{field}", f"has no effect on a {kind}: source", "remove it", warning=True)
