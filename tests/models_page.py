"""Writes docs/models.md from the model repository, the tests and the last benchmark: `python -m tests.models_page`.

The one invariant: every model of the repository has one row, and nothing in the table is written by hand.
"""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.backends.ray.tiny import TINY
from serving.repository.load import load_repository
from serving.repository.model import Model

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
RESULTS = ROOT / "bench" / "engines.json"
TEMPLATE = ROOT / "docs" / "models.in.md"


def page() -> str:
    """The whole page."""
    models = list(load_repository([ROOT / "model_repository"]).models.values())
    tested = set(named_in_tests())
    starts = cold_starts()
    tasks: dict[str, list[Model]] = {}
    for model in models:
        tasks.setdefault(model.card.task, []).append(model)
    parts: list[str] = []
    for task, of_task in sorted(tasks.items()):
        parts.append(f"\n## {task}\n")
        parts.append("| model | engine | licence | use | memory, MiB | tiny | cold start |")
        parts.append("|---|---|---|---|---|---|---|")
        parts += [row(model, tested, starts) for model in sorted(of_task, key=lambda each: each.name)]
        gaps = [f"- `{model.name}`: {gap}" for model in of_task for gap in model.card.gaps]
        parts += ["\nNot served, and why:\n", *gaps] if gaps else []
    return TEMPLATE.read_text(encoding="utf-8").replace("{{ tasks }}\n", "\n".join(parts) + "\n")


def row(model: Model, tested: set[str], starts: dict[str, str]) -> str:
    """One model's line."""
    card = model.card
    uses = {True: "commercial", False: "non-commercial", "conditional": f"conditional: {card.license.condition}"}
    memory = f"{card.memory.weights_mib:,.0f}, peak {card.memory.peak_mib:,.0f}" if card.memory else "-"
    cells = (
        f"[{model.name}](../model_repository/{model.name}/model.yaml)" + (" *(optional)*" if card.optional else ""),
        f"{card.engine}, {card.architecture}" if card.architecture else f"{card.engine}",
        f"[{card.license.name}]({card.license.url})" if card.license.url else card.license.name,
        uses[card.license.commercial_use],
        memory,
        "tested" if model.name in tested else "no" if model.name in TINY else "-",
        starts.get(model.name, "-"),
    )
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def cold_starts() -> dict[str, str]:
    """Of tiny checkpoints, by model, as the last benchmark measured them."""
    if not RESULTS.is_file():
        return {}
    told = json.loads(RESULTS.read_text(encoding="utf-8"))["cold_starts"]
    return {each["model"]: f"{each['load_s']:.2f} s + {each['warm_up_s'] or 0:.2f} s" for each in told}


def named_in_tests() -> Iterator[str]:
    """Models with a tiny checkpoint whose names stand in a test, as a text of their own."""
    for path in sorted((ROOT / "tests" / "serving" / "backends" / "ray" / "engines").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in TINY:
                yield str(node.value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"written: {PAGE.relative_to(ROOT)}\n")
