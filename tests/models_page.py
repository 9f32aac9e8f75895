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
RESULTS = ROOT / "bench" / "results" / "engines.json"
HEAD = """# Models

Every model of the repository. This page is made by `python -m tests.models_page` from the folders in `model_repository/`, the
tests and the last `make bench-engines`; a test keeps it current.

- **use**: what the licence of the *weights* allows; how that is enforced is in [licences.md](licences.md). Licences were
  read once and change: look at the link in the card before you rely on one.
- **memory**: of the card: weights, and the highest use while answering, with where the figures come from in the card.
- **tiny**: the tests run the engine on a random-weight checkpoint of the real format (`reelmesh models tiny NAME`).
- **cold start**: of that tiny checkpoint on two CPU cores: load, and first request. Your own, with real weights, is shown
  by `reelmesh models show NAME`.

Models without a mark are served by default; *(optional)* ones where they are asked for: `reelmesh up --with NAME`.
"""
MISSING = """
## Names that are not here, and what stands in

| asked for | why not | instead |
|---|---|---|
| Jukebox | gone from transformers 5; non-commercial | `ace_step`, `stable_audio`, `musicgen_*`: see [model_repository/_jukebox](../model_repository/_jukebox/README.md) |
| audiocraft | 1.3.0 pins torch 2.1 and does not install beside the others | the same MusicGen weights by transformers |
| TTS 0.22 | unmaintained, drags numpy to 1.26 | its maintained fork coqui-tts, with the same import name |
| Runway Gen-2, Dream Machine | served by their makers alone, no weights | a SaaS backend, not built yet |
| CogVideo | its successor has taken its place | `cogvideox_*` |
| face-alignment, dlib | download weights by themselves; source only | `face_detection` and `face_landmarks`, real weights served by Triton |
"""


def page() -> str:
    """The whole page."""
    models = list(load_repository([ROOT / "model_repository"]).models.values())
    tested = set(named_in_tests())
    starts = cold_starts()
    tasks: dict[str, list[Model]] = {}
    for model in models:
        tasks.setdefault(model.card.task, []).append(model)
    parts = [HEAD]
    for task, of_task in sorted(tasks.items()):
        parts.append(f"\n## {task}\n")
        parts.append("| model | engine | licence | use | memory, MiB | tiny | cold start |")
        parts.append("|---|---|---|---|---|---|---|")
        parts += [row(model, tested, starts) for model in sorted(of_task, key=lambda each: each.name)]
        gaps = [f"- `{model.name}`: {gap}" for model in of_task for gap in model.card.gaps]
        parts += ["\nNot served, and why:\n", *gaps] if gaps else []
    return "\n".join(parts) + "\n" + MISSING


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
