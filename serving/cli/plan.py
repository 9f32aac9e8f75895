"""`reelmesh plan`: which replica runs on which card, as a table, JSON or a picture; thin over serving.placement.

The one invariant: it changes nothing: what it prints is what the mesh would do.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.gpus import gpu_memories_mib
from serving.cli.output import ExitCode, print_json, stdout
from serving.errors import BadInput, NotFound
from serving.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from serving.placement.cards import Card
    from serving.placement.plan import Plan

Repositories = Annotated[
    list[Path] | None,
    typer.Option("--model-repository", "--repository", "-r", help="Folder of models; may be given more than once."),
]


def plan(
    *,
    repository: Repositories = None,
    cards: Annotated[
        Path | None,
        typer.Option(help="YAML list of {node, memory_gib, kind, count, slices_gib}; by default this machine's GPUs."),
    ] = None,
    fake_gpus: Annotated[int, typer.Option(min=0, max=64, help="So many cards that are only pretended.")] = 0,
    fake_memory: Annotated[float, typer.Option(min=0.5, max=4096, help="GiB of each.")] = 24.0,
    replicas: Annotated[
        list[str] | None, typer.Option(help="MODEL=COUNT; by default what model.yaml has as its least.")
    ] = None,
    headroom: Annotated[float, typer.Option(min=0.0, max=0.5, help="Part of each card that is kept free.")] = 0.08,
    picture: Annotated[Path | None, typer.Option("--png", help="Write a picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pack the models that lease a GPU onto cards; ends with 1 if something does not fit."""
    from serving.placement.demand import loads_of
    from serving.placement.pack import pack
    from serving.repository.load import load_repository

    models = load_repository(repository or Settings().model_repositories).models
    loads = loads_of(models.values())
    wanted = {load.model: max(models[load.model].card.replicas.min, 1) for load in loads}
    wanted |= _counts(replicas or [], wanted)
    found = pack(_cards(cards, fake_gpus, fake_memory), loads, wanted, headroom=headroom)
    if picture is not None:
        from serving.placement.picture import png

        picture.write_bytes(png(found))
    if as_json:
        print_json(_json(found))
    else:
        stdout().print(_table(found))
        for left in found.unplaced:
            stdout().print(f"{left.replica} does not fit: {left.why}: {left.change}", markup=False, soft_wrap=True)
    raise typer.Exit(ExitCode.FAILED if found.unplaced else ExitCode.OK)


def _cards(file: Path | None, fakes: int, gib: float) -> "list[Card]":
    """Those of a file, those pretended, or those of this machine.

    Raises:
        NotFound: this machine has none.
    """
    from serving.placement.demand import MIB_PER_GIB, machine_cards, read_cards

    if file is not None:
        return read_cards(file)
    found = machine_cards([gib * MIB_PER_GIB] * fakes if fakes else gpu_memories_mib())
    if not found:
        fix = "give --cards FILE, or --fake-gpus N --fake-memory GIB"
        raise NotFound("this machine has no GPU", field="--cards", fix=fix)
    return found


def _counts(pairs: list[str], known: dict[str, int]) -> dict[str, int]:
    found = {}
    for pair in pairs:
        model, _, count = pair.rpartition("=")
        if not count.isdecimal() or not model:
            raise BadInput(f"{pair[:64]!r} is no number of replicas", field="--replicas", fix="write MODEL=COUNT")
        if model not in known:
            fix = f"use one of {', '.join(sorted(known))[:300]}"
            raise BadInput(f"no model {model[:64]!r} leases a GPU", field="--replicas", fix=fix)
        found[model] = int(count)
    return found


def _json(found: "Plan") -> dict[str, object]:
    return {
        "placed": found.placed,
        "unplaced": [{"replica": left.replica, "why": left.why, "change": left.change} for left in found.unplaced],
        "cards": [
            {
                "name": room.card.name,
                "kind": room.card.kind,
                "memory_mib": room.card.memory_mib,
                "weights_mib": room.weights_mib,
                "taken_mib": room.taken_mib,
                "free_mib": room.free_mib,
                "replicas": sorted(room.held),
            }
            for room in found.rooms().values()
        ],
    }


def _table(found: "Plan") -> "Table":
    from rich.table import Table

    table = Table(title=f"{len(found.placed)} replicas on {len(found.cards)} cards", title_justify="left")
    for column in ("card", "kind", "GiB", "weights", "in turns", "free", "replicas"):
        table.add_column(column, justify="left" if column in ("card", "kind", "replicas") else "right")
    for room in found.rooms().values():
        figures = (room.card.memory_mib, room.weights_mib, room.taken_mib - room.weights_mib, room.free_mib)
        gib = [f"{mib / 1024:.1f}" for mib in figures]
        table.add_row(room.card.name, room.card.kind, *gib, ", ".join(sorted(room.held)) or "-")
    return table
