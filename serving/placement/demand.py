"""From model cards to loads: what `reelmesh plan` and the mesh pack; and the cards of a machine or a file.

The one invariant: only models that lease a GPU are placed; one without figures of memory is refused by name, since a
guess would not hold.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import BadInput
from serving.placement.cards import Card, Load, Pace
from serving.repository.model import Model

QUICK_TASKS: Final = frozenset({"speech", "transcription", "translation", "alignment", "face_landmarks"})
LONG_TASKS: Final = frozenset({"text_to_video", "image_to_video", "music"})
MOST_CARDS: Final = 10_000
MOST_BYTES: Final = 1 << 20
MIB_PER_GIB: Final = 1024.0


def pace_of(task: str) -> Pace:
    """Whether somebody waits for answers of a task, or calls take minutes."""
    return "quick" if task in QUICK_TASKS else "long" if task in LONG_TASKS else "any"


def loads_of(models: Iterable[Model], near: Mapping[str, frozenset[str]] | None = None) -> list[Load]:
    """Of the models that lease a GPU.

    Args:
        models: of the repository.
        near: the models that a model hands big arrays to.

    Raises:
        BadInput: a model has no figures.
    """
    found = []
    for model in models:
        if not model.card.share.gpu:
            continue
        memory = model.card.memory
        if memory is None:
            fix = "run `reelmesh models profile`, or give weights_mib and peak_mib"
            field = f"{model.name}/model.yaml:memory"
            raise BadInput("leases a GPU and says nothing of its memory", field=field, fix=fix)
        peak = max(memory.peak_mib - memory.weights_mib, 0.0)
        beside = (near or {}).get(model.name, frozenset())
        found.append(Load(model.name, memory.weights_mib, peak, pace_of(model.card.task), beside))
    return found


class _Entry(BaseModel):
    """Cards of one kind in one node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(min_length=1, max_length=128)
    memory_gib: float = Field(gt=0, le=4096)
    kind: str = Field(default="", max_length=128)
    count: int = Field(default=1, ge=1, le=64)
    slices_gib: list[float] = Field(default=[], max_length=7)
    """MIG slices of each card, by memory; the card itself is then no card."""


def read_cards(file: Path) -> list[Card]:
    """Cards as a YAML list has them: ``- {node: a, memory_gib: 24, kind: NVIDIA L4, count: 4}``.

    Raises:
        BadInput: the file cannot be read; names the entry and the field.
    """
    fix = "write a list of {node: NAME, memory_gib: 24, kind: NVIDIA L4, count: 4}"
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadInput(f"larger than {MOST_BYTES >> 20} MiB", field=str(file), fix=fix)
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot be read: {type(error).__name__}", field=str(file), fix=fix) from error
    if not isinstance(entries, list):
        raise BadInput("this is no list", field=str(file), fix=fix)
    cards: list[Card] = []
    numbers: dict[str, int] = {}
    for index, held in enumerate(entries):
        try:
            entry = _Entry.model_validate(held)
        except ValidationError as error:
            told = error.errors()[0]
            field = f"{file}[{index}]:{'.'.join(map(str, told['loc']))}"
            raise BadInput(told["msg"], field=field, fix=fix) from error
        if sum(entry.slices_gib) > entry.memory_gib:
            problem = f"its slices have {sum(entry.slices_gib):g} GiB, and the card {entry.memory_gib:g}"
            raise BadInput(problem, field=f"{file}[{index}]:slices_gib", fix="give the slices of one card")
        for _ in range(entry.count):
            number = numbers[entry.node] = numbers.get(entry.node, -1) + 1
            cards += _cards(entry, number)
    if len(cards) > MOST_CARDS:
        raise BadInput(f"{len(cards)} cards", field=str(file), fix=f"give {MOST_CARDS} at most")
    return cards


def _cards(entry: _Entry, number: int) -> list[Card]:
    name = f"{entry.node}/{number}"
    if not entry.slices_gib:
        return [Card(name, entry.node, entry.memory_gib * MIB_PER_GIB, entry.kind)]
    return [
        Card(f"{name}/{index}", entry.node, gib * MIB_PER_GIB, f"{entry.kind} slice".strip(), is_slice=True)
        for index, gib in enumerate(entry.slices_gib)
    ]


def machine_cards(memories_mib: Sequence[float], node: str = "here") -> list[Card]:
    """The GPUs of one machine."""
    return [Card(f"{node}/{index}", node, mib) for index, mib in enumerate(memories_mib)]
