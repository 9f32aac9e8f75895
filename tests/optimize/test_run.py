import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from optimize import recipe as recipes
from optimize import run
from optimize.cli import app
from optimize.recipe import BATCH, Recipe, Tensor
from optimize.report import read_report
from optimize.torch_recipe import TorchRecipe
from serving.errors import BadInput, EngineFailed, MissingDependency, NotFound
from serving.repository.lint import lint
from serving.repository.read import RawModel, read_model

CARD = """
description: A small network.
task: tensor
backend: triton
engine: tensor
license: {name: Apache-2.0, commercial_use: true}
source: {uri: "export:small"}
export: {recipe: small, relative_tolerance: 0.0001, opset: 18}
"""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layer(x).tanh()
        return hidden, hidden.sum(dim=1)


class SlightlyOff(Small):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, total = super().forward(x)
        return hidden, total * (1 + 0.01 * (x.shape[0] - 2))


class NoDynamicAxis(Small):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x.reshape(2, 6))


def small(module: Callable[[], nn.Module] = Small) -> Recipe:
    return TorchRecipe(
        module=module,
        reference=Small,
        inputs=[Tensor("X", "float32", (BATCH, 6))],
        outputs=[Tensor("HIDDEN", "float32", (BATCH, 4)), Tensor("TOTAL", "float32", (BATCH,))],
        sizes=[{BATCH: 2}, {BATCH: 3}, {BATCH: 1}],
        max_batch=8,
        source=Path(__file__),
    )


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recipe], None]:
    def register(recipe: Recipe) -> None:
        monkeypatch.setattr(run, "find_recipe", lambda name: recipe)

    monkeypatch.setattr("optimize.gates.CASE_SECONDS", 0.01)
    return register


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "models" / "small"
    model.mkdir(parents=True)
    (model / "model.yaml").write_text(CARD)
    return model


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def model_of(folder: Path) -> RawModel:
    return read_model(folder)


def test_an_export_becomes_version_one_with_config_and_report(folder: Path, use: Callable[[Recipe], None]) -> None:
    use(small())
    steps: list[str] = []
    outcome = run.optimize(model_of(folder), notify=steps.append)
    assert outcome.status == "published"
    assert steps == list(run.STEPS)
    files = ["1", "1/model.onnx", "1/report.json", "1/report.md", "config.pbtxt", "model.yaml"]
    assert listing(folder) == files
    assert lint([folder.parent]) == []
    assert (
        'name: "TOTAL" data_type: TYPE_FP32 dims: [1] reshape { shape: [ ] }' in (folder / "config.pbtxt").read_text()
    )
    report = json.loads((folder / "1" / "report.json").read_text())
    assert {"torch", "onnx", "onnxscript", "exporter", "onnxruntime"} <= set(report["tools"])
    assert [row["case"] for row in report["timing"]] == ["batch 2", "batch 3", "batch 1"]
    assert len(report["parity"]) == 6
    assert all(row["relative"] <= 1e-4 for row in report["parity"])
    assert report["onnx_bytes"] == (folder / "1" / "model.onnx").stat().st_size
    assert "| batch 3 | TOTAL |" in (folder / "1" / "report.md").read_text()


def test_a_second_run_has_nothing_to_do_and_a_forced_one_makes_the_same_bytes(
    folder: Path, use: Callable[[Recipe], None]
) -> None:
    use(small())
    first = run.optimize(model_of(folder))
    written = (folder / "1" / "model.onnx").read_bytes()
    steps: list[str] = []
    assert run.optimize(model_of(folder), notify=steps.append).status == "up_to_date"
    assert steps == []
    forced = run.optimize(model_of(folder), force=True)
    assert forced.status == "same_bytes"
    assert forced.report.onnx_sha256 == first.report.onnx_sha256
    assert (folder / "1" / "model.onnx").read_bytes() == written
    assert not (folder / "2").exists()


def test_a_file_names_no_path_and_no_line_of_code(folder: Path, use: Callable[[Recipe], None]) -> None:
    use(small())
    run.optimize(model_of(folder))
    written = (folder / "1" / "model.onnx").read_bytes()
    for trace in (str(Path(__file__).parent).encode(), b".py", b"torch", b"Small"):
        assert trace not in written


def test_a_damaged_file_is_exported_again(folder: Path, use: Callable[[Recipe], None]) -> None:
    use(small())
    run.optimize(model_of(folder))
    (folder / "1" / "model.onnx").write_bytes(b"half a file")
    outcome = run.optimize(model_of(folder))
    assert (outcome.status, outcome.report.version) == ("published", 2)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        pytest.param(SlightlyOff, r"parity failed at batch [13]: TOTAL: differs by", id="wrong at another shape"),
        pytest.param(NoDynamicAxis, "axis batch of X was specialised to 2: declare it static", id="a fixed axis"),
    ],
)
def test_what_fails_a_gate_is_not_published(
    folder: Path, use: Callable[[Recipe], None], module: type[nn.Module], message: str
) -> None:
    use(small())
    run.optimize(model_of(folder))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    use(small(module))
    with pytest.raises(EngineFailed, match=message):
        run.optimize(model_of(folder), force=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_better_recipe_becomes_the_next_version_and_the_old_one_stays(
    folder: Path, use: Callable[[Recipe], None]
) -> None:
    use(small())
    run.optimize(model_of(folder))
    old = (folder / "1" / "model.onnx").read_bytes()
    other = small()
    other.seed = 7
    use(other)
    outcome = run.optimize(model_of(folder), force=True)
    assert outcome.folder.name == "2"
    assert (folder / "1" / "model.onnx").read_bytes() == old
    report = read_report(folder / "2")
    assert report is not None
    assert report.version == 2


def test_a_config_that_contradicts_the_recipe_is_left_alone(folder: Path, use: Callable[[Recipe], None]) -> None:
    use(small())
    run.optimize(model_of(folder))
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace("TYPE_FP32", "TYPE_FP16"))
    with pytest.raises(BadInput, match="TYPE_FP16"):
        run.optimize(model_of(folder), force=True)


def test_a_card_without_export_says_what_to_add(folder: Path) -> None:
    (folder / "model.yaml").write_text(CARD[: CARD.index("export: {")])
    with pytest.raises(BadInput, match="add export"):
        run.optimize(model_of(folder))


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="log_mel"):
        recipes.find_recipe("nonsense")


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "gone", "optimize.no_such_module:RECIPE")
    with pytest.raises(MissingDependency, match=r"pip install 'reelmesh\[export\]'"):
        recipes.find_recipe("gone")


@pytest.mark.parametrize(
    ("sizes", "max_batch", "problem"),
    [
        pytest.param([{BATCH: 2}, {BATCH: 3}], 8, "at least two others", id="too few shapes"),
        pytest.param([{BATCH: 2}] * 3, 0, "batch axis", id="batch axis without a bound"),
    ],
)
def test_a_recipe_that_cannot_prove_anything_is_refused(
    sizes: list[dict[str, int]], max_batch: int, problem: str
) -> None:
    tensor = Tensor("X", "float32", (BATCH, 6))
    with pytest.raises(BadInput, match=problem):
        TorchRecipe(
            module=Small, inputs=[tensor], outputs=[tensor], sizes=sizes, max_batch=max_batch, source=Path(__file__)
        )


def test_the_command_prints_json_and_leaves_errors_to_the_root(folder: Path, use: Callable[[Recipe], None]) -> None:
    use(small())
    repository = ["--repository", str(folder.parent)]
    done = CliRunner().invoke(app, ["small", "--json", *repository])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["status"] == "published"
    again = CliRunner().invoke(app, ["small", *repository])
    assert "up to date" in again.stdout
    use(small(SlightlyOff))
    failed = CliRunner().invoke(app, ["small", "--force", *repository])
    assert isinstance(failed.exception, EngineFailed)
    assert failed.stdout == ""
    unknown = CliRunner().invoke(app, ["smal", *repository])
    assert isinstance(unknown.exception, NotFound)
    assert "there are: small" in str(unknown.exception)


def test_the_log_mel_export_is_reproduced_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimize.gates.CASE_SECONDS", 0.01)
    committed = Path(__file__).parents[2] / "model_repository" / "log_mel"
    model = tmp_path / "log_mel"
    model.mkdir()
    shutil.copyfile(committed / "model.yaml", model / "model.yaml")
    outcome = run.optimize(model_of(model))
    assert outcome.status == "published"
    assert (model / "config.pbtxt").read_text() == (committed / "config.pbtxt").read_text()
    if outcome.report.tools == (read_report(committed / "1") or outcome.report).tools:
        assert (model / "1" / "model.onnx").read_bytes() == (committed / "1" / "model.onnx").read_bytes()
