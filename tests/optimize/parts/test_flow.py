"""`reelmesh optimize` on a part of a real pipeline, from recorded requests to the engine that runs the file."""

import asyncio
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from optimize import cli, command
from optimize.parts import work
from optimize.parts.part import Part
from optimize.parts.run import optimize_parts
from optimize.parts.work import Asked
from optimize.quality import BOUNDS
from optimize.tensorrt.options import Options
from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.errors import BadInput, MissingDependency, NotFound
from serving.protocol.tasks import ImageRequest
from serving.repository.lint import lint
from serving.repository.load import load_repository
from serving.settings import Settings
from serving.weights.cache import WeightsCache

MODELS = Path(__file__).parents[3] / "model_repository"
PART = "text_encoder"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exports of these tests are kept apart from the user's."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimize.parts.gates.CASE_SECONDS", 0.05)
        patch.setattr("optimize.parts.fingerprint.exports_folder", lambda: folder / "exports")
        yield folder


@pytest.fixture(scope="module")
def weights(home: Path) -> WeightsCache:
    return WeightsCache.of(Settings(home=home))


@pytest.fixture(scope="module")
def repository(home: Path) -> Path:
    tiny_model_folder(load_repository([MODELS]).get("sdxl"), home / "models")
    return home / "models"


def export(repository: Path, weights: WeightsCache, **more: Any) -> work.PartOutcome:
    model = load_repository([repository]).get("sdxl")
    (outcome,) = optimize_parts(model, Asked([PART], **more), weights)
    return outcome


@pytest.fixture(scope="module")
def published(repository: Path, weights: WeightsCache) -> work.PartOutcome:
    return export(repository, weights)


def test_a_part_is_published_beside_its_model_with_a_report_and_passes_lint(
    repository: Path, published: work.PartOutcome
) -> None:
    assert published.status == "published"
    assert published.folder == repository / "sdxl_text_encoder" / "1"
    names = sorted(path.name for path in published.folder.iterdir())
    assert names == ["model.onnx", "part.json", "report.json", "report.md"]
    report = published.report
    assert report is not None
    assert [row.gate for row in report.gates] == ["load", "parity", "quality", "memory", "time"]
    assert report.worst < 1e-5
    assert {row.case for row in report.parity} == {"batch 1", "batch 2", "batch 3"}
    assert {row.measure for row in report.quality} == {"PSNR", "SSIM"}
    assert report.memory is not None
    assert report.memory.onnx_peak_bytes > report.onnx_bytes
    assert {"torch", "onnx", "onnxscript", "opset", "exporter", "onnxruntime"} <= set(report.tools)
    assert [row for row in lint([repository]) if row.level == "error"] == []
    card = yaml.safe_load((repository / "sdxl_text_encoder/model.yaml").read_text())
    assert card["license"] == yaml.safe_load((MODELS / "sdxl/model.yaml").read_text())["license"]


def test_nothing_is_exported_twice_and_a_forced_export_of_the_same_bytes_is_no_new_version(
    repository: Path, weights: WeightsCache, published: work.PartOutcome
) -> None:
    again = export(repository, weights)
    assert (again.status, again.folder) == ("up_to_date", published.folder)
    forced = export(repository, weights, force=True)
    assert (forced.status, forced.folder) == ("same_bytes", published.folder)
    assert [path.name for path in published.folder.parent.iterdir() if path.is_dir()] == ["1"]


def test_a_damaged_version_is_not_up_to_date_and_settings_of_the_folder_stay(
    repository: Path, weights: WeightsCache, published: work.PartOutcome, tmp_path: Path
) -> None:
    other = tmp_path / "models"
    shutil.copytree(repository, other)
    folder = other / "sdxl_text_encoder"
    (folder / "1/model.onnx").write_bytes(b"half")
    with (folder / "config.pbtxt").open("a") as config:
        config.write("instance_group { count: 2 }\n")
    card = yaml.safe_load((folder / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump({**card, "share": {"gpu": 0.3}}))
    again = export(other, weights)
    assert (again.status, again.folder.name) == ("published", "2")
    assert (again.folder / "model.onnx").read_bytes() == (published.folder / "model.onnx").read_bytes()
    kept = load_repository([other]).get("sdxl_text_encoder")
    assert (kept.card.share.gpu, kept.config.instance_group[0].count) == (0.3, 2)


def test_a_model_of_somebody_elses_is_never_taken_over(
    repository: Path, weights: WeightsCache, published: work.PartOutcome, tmp_path: Path
) -> None:
    other = tmp_path / "models"
    shutil.copytree(repository, other)
    card = other / "sdxl_text_encoder/model.yaml"
    card.write_text(card.read_text().replace("export:sdxl.text_encoder", "export:mine"))
    before = card.read_text()
    failed = export(other, weights, force=True)
    assert failed.status == "failed"
    assert "sdxl_text_encoder is a model of its own: rename that folder" in str(failed.error)
    assert card.read_text() == before


def test_a_chosen_part_that_is_not_there_does_not_keep_it_from_being_made(
    repository: Path, published: work.PartOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    other = tmp_path / "models"
    shutil.copytree(repository / "sdxl", other / "sdxl")
    card = yaml.safe_load((other / "sdxl/model.yaml").read_text())
    chosen = {**card, "adapters": {}, "optimized": {PART: {"model": "sdxl_text_encoder"}}}
    (other / "sdxl/model.yaml").write_text(yaml.safe_dump(chosen))
    with pytest.raises(BadInput, match="no model 'sdxl_text_encoder' beside this one"):
        load_repository([other])
    monkeypatch.setenv("REELMESH_HOME", str(home))
    ran = CliRunner().invoke(cli.app, ["sdxl", "-r", str(other), "--part", PART, "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["status"] == "published"
    assert "sdxl text_encoder: parity" in ran.stderr
    load_repository([other])


def test_the_engine_runs_the_version_that_its_card_names(
    repository: Path, weights: WeightsCache, published: work.PartOutcome, tmp_path: Path
) -> None:
    card = repository / "sdxl/model.yaml"
    plain = card.read_text()
    pictures = []
    try:
        for optimized in ({}, {PART: {"model": "sdxl_text_encoder", "version": 1}}):
            card.write_text(yaml.safe_dump({**yaml.safe_load(plain), "adapters": {}, "optimized": optimized}))
            pictures.append(asyncio.run(picture(repository, weights, tmp_path, swapped=bool(optimized))))
    finally:
        card.write_text(plain)
    differences = [abs(one - other) for one, other in zip(*pictures, strict=True)]
    assert max(differences) <= 1
    assert max(pictures[0]) - min(pictures[0]) > 50


async def picture(repository: Path, weights: WeightsCache, scratch: Path, *, swapped: bool) -> bytes:
    """Pixels of a picture by the model as its card says."""
    from PIL import Image

    store = ArtifactStore(f"file://{scratch}/store", scratch / "cache")
    context = EngineContext(store, scratch, threads=2, weights=weights)
    engine: Any = load_engine(load_repository([repository]).get("sdxl"), context)
    try:
        result = await engine.run(ImageRequest(prompt="a boat", width=64, height=80, steps=2, seed=5), Call())
        assert [part.calls for part in engine.swapped.values()] == ([1] if swapped else [])
        return Image.open(await store.local_path(result.image)).tobytes()
    finally:
        await engine.close()


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("gate", "change", "words"),
    [
        ("parity", lambda patch: patch.setattr(Part, "tolerance", lambda *_: 1e-12), "parity failed at batch"),
        (
            "memory",
            lambda patch: [patch.setattr(f"optimize.parts.memory.{name}", 0) for name in ("MOST_TIMES", "SPARE_BYTES")],
            r"memory: takes \d+ MiB where torch takes",
        ),
        (
            "quality",
            lambda patch: patch.setattr(
                "optimize.parts.whole.BOUNDS", {"fp32": dataclasses.replace(BOUNDS["fp32"], psnr_db=500.0)}
            ),
            "quality: the whole model's result differs too much: PSNR",
        ),
        ("", lambda patch: patch.setattr("optimize.parts.gates.check_file", full_disk), "OSError: .*No space left"),
    ],
    ids=["parity", "memory", "quality", "a foreign error"],
)
def test_a_gate_that_fails_publishes_nothing(
    repository: Path, weights: WeightsCache, monkeypatch: pytest.MonkeyPatch, gate: str, change: Any, words: str
) -> None:
    before = sorted(str(path) for path in (repository / "sdxl_text_encoder").rglob("*"))
    change(monkeypatch)
    failed = export(repository, weights, force=True)
    assert failed.status == "failed"
    with pytest.raises(type(failed.error), match=words):  # type: ignore[arg-type]
        raise failed.error  # type: ignore[misc]
    assert sorted(str(path) for path in (repository / "sdxl_text_encoder").rglob("*")) == before
    last = failed.gates[-1] if failed.gates else None
    if gate:
        assert last is not None
        assert (last.gate, last.outcome) == (gate, "failed")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_part_or_precision_that_is_not_there_is_named(repository: Path, weights: WeightsCache) -> None:
    model = load_repository([repository]).get("sdxl")
    with pytest.raises(BadInput, match="sdxl has no part 'vocoder': use one of unet, vae_decoder"):
        optimize_parts(model, Asked(["vocoder"]), weights)
    with pytest.raises(BadInput, match="vae_decoder is not quantised"):
        optimize_parts(model, Asked(["vae_decoder"], "int8"), weights)
    with pytest.raises(MissingDependency, match=r"bf16 on GPUs alone, .* know none here: use --precision fp16"):
        optimize_parts(model, Asked([PART], "bf16"), weights)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "0 requests: give 1 to 64, one a line"),
        ("{", "requests.jsonl:1: this is no JSON: write a request of the task image"),
        ("[1]", "requests.jsonl:1: this is no JSON object"),
        ('{"prompt": "a"}\n{"prompt": "a", "width": -4}', "requests.jsonl:2: width: Input should be greater"),
        ('{"text": "speak", "voice": "anna"}', "requests.jsonl:1: "),
        ('{"prompt": "a", "control": {"path": "nowhere.png"}}', "nowhere.png is no file of media"),
        ('\n{"prompt": "a\u2028b"}\n\n{', "requests.jsonl:4: this is no JSON"),
    ],
    ids=["empty", "broken", "no object", "out of bounds", "another task", "no file", "a separator in a string"],
)
def test_requests_of_the_wrong_kind_are_told_by_their_line(
    repository: Path, weights: WeightsCache, tmp_path: Path, lines: str, words: str
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(BadInput, match=words):
        export(repository, weights, requests=file, force=True)


def test_the_command_speaks_json_and_says_what_is_wrong(
    repository: Path, published: work.PartOutcome, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("REELMESH_HOME", str(home))
    ran = CliRunner().invoke(cli.app, ["sdxl", "-r", str(repository), "--part", PART, "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert (told["status"], told["part"], told["precision"]) == ("up_to_date", PART, "fp32")
    for arguments, words in (
        ([], "a MODEL or --all is needed"),
        (["sdxl", "--all"], "a MODEL or --all is needed"),
        (["sdxl", "--requests", "nowhere.jsonl"], "there is no such file"),
        (["sdxl", "--report"], "leave MODEL and --part out"),
    ):
        ran = CliRunner().invoke(cli.app, [*arguments, "-r", str(repository)])
        assert isinstance(ran.exception, BadInput | NotFound)
        assert words in str(ran.exception)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and the plan would be built")
def test_the_plan_of_a_published_version_needs_no_export_and_says_what_is_missing(
    repository: Path, published: work.PartOutcome, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("REELMESH_HOME", str(home))
    line = ["sdxl", "-r", str(repository), "--part", PART, "--target", "tensorrt"]
    for more in ([], ["--version", "1", "--plan", "level=5", "--plan", "version_compatible=yes"]):
        ran = CliRunner().invoke(cli.app, [*line, *more])
        assert ran.exit_code == 3, ran.output
        assert "there is no NVIDIA driver" in ran.stderr
        assert f"{PART}: tensorrt" in ran.stderr
        assert "record" not in ran.stderr
    for more, words in (
        (["--version", "9"], "text_encoder has no version 9: there are: 1"),
        (["--version", "1", "--force"], "--force: a published version is not exported: leave --version or --force out"),
        (["--precision", "int8"], "TensorRT wants symmetric ones: use fp16 or bf16"),
        (["--plan", "level=high"], "level cannot be 'high': write a whole number"),
        (["--plan", "hardware=mine"], "there is no hardware 'mine': use one of this, same_capability, ampere_plus"),
        (["--plan", "workspace=1"], "'workspace=1' is no option of a plan: write KEY=VALUE, where KEY is one of"),
    ):
        ran = CliRunner().invoke(cli.app, [*line, *more])
        assert isinstance(ran.exception, BadInput | NotFound), ran.output
        assert words in str(ran.exception)
    ran = CliRunner().invoke(cli.app, [*line[:-2], "--plan", "level=5"])
    assert "--plan: is of plans alone: add --target tensorrt" in str(ran.exception)


def test_all_means_every_model_that_can_do_what_is_asked() -> None:
    names = command.exportable([MODELS], Asked(), plans=None)
    assert {"sdxl", "log_mel", "wav2lip"} <= set(names)
    assert not {"speech", "compositor"} & set(names)
    assert "log_mel" not in command.exportable([MODELS], Asked(precision="fp16"), plans=None)
    assert "log_mel" not in command.exportable([MODELS], Asked(), plans=command.Plans(Options()))
    assert set(command.exportable([MODELS], Asked(["image_encoder"]), plans=None)) == {"stable_video_diffusion"}


@pytest.mark.parametrize("option", [["--precision", "fp16"], ["--target", "tensorrt"], ["--part", "unet"]])
def test_what_a_recipe_cannot_do_is_refused(option: list[str]) -> None:
    ran = CliRunner().invoke(cli.app, ["log_mel", "-r", str(MODELS), *option])
    assert isinstance(ran.exception, BadInput)
    assert f"{option[0]}: log_mel is exported whole, in fp32: leave {option[0]} out" in str(ran.exception)
