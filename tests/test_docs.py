"""README and docs say what the code does: links, commands, settings, metrics and fields exist, and none is left out."""

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from graphs.app import job_types
from graphs.lipsync import AnimationRequest
from graphs.music import MusicPieceRequest
from graphs.podcast import PodcastRequest
from graphs.subtitles import SubtitlesRequest
from graphs.video import VideoRequest
from graphs.voice import VoiceRequest
from serving import errors, telemetry
from serving.backends.ray.engines import ENGINES
from serving.cli.main import run
from serving.cli.output import EXIT_CODES
from serving.exposition import UNREADABLE
from serving.jobs.submit import JobRequest
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TASKS
from serving.repository.load import load_repository
from serving.repository.model import ModelCard
from serving.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_PICTURE_BYTES = 300_000
GROUPS = {"artifacts", "jobs", "keys", "models", "k8s"}
"""Commands with sub-commands."""
CARD_CELLS = 3
"""Value, default and meaning: what tables of card fields have beside the name, and no other table of that page."""
NO_SETTINGS = {"REELMESH_URL", "REELMESH_KEY"}
"""Variables of commands, not of the mesh."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Fenced blocks of a language."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.M):
        if language in languages:
            yield body


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)


def anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: str) -> dict[str, list[str]]:
    """Cells of every table row, by the code in its first cell."""
    lines = re.findall(r"^\| `([^`]+)`[^|]*\|(.*)\|$", text_of(page), re.M)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}


def fields(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every field with its default, dotted; values of maps are ``*``, items of lists ``[]``; a file is one field."""
    for name, field in model.model_fields.items():
        yield before + name, field.get_default(call_default_factory=False)
        for kind, inner in parts(field.annotation):
            yield from fields(inner, f"{before}{name}{kind}.")


def parts(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not ArtifactRef:
        yield "", annotation
    mark = {dict: ".*", list: "[]"}.get(getattr(annotation, "__origin__", None), "")
    for argument in get_args(annotation):
        yield from ((mark + kind, inner) for kind, inner in parts(argument))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(page: Path) -> Iterator[list[str]]:
    for body in blocks(page, "sh"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if line.lstrip().startswith("reelmesh ") else []
            if words:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_exists_with_its_options(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: False))
    monkeypatch.setenv("COLUMNS", "200")
    for words in commands(page):
        plain = list(takewhile(lambda word: not word.startswith("-") and "." not in word, words))
        path = plain[: 2 if words[0] in GROUPS else 1]
        assert run([*path, "--help"]) == 0, words
        shown = set(re.findall(r"(?<![\w-])--?[\w-]+", capsys.readouterr().out))
        options = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        assert options <= shown, words


def test_every_flag_of_serve_is_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["serve", "--help"]) == 0
    flags = set(re.findall(r"(?<=│ )--[\w-]+", capsys.readouterr().out))
    assert set(rows("docs/serve.md")) == flags


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: cells for name, cells in rows("docs/settings.md").items() if name not in NO_SETTINGS}
    settings = {
        "REELMESH_" + name.replace(".", "__").upper(): default
        for name, default in fields(Settings)
        if not isinstance(default, BaseModel) and "[]" not in name  # entries have their own page
    }
    assert {name for name in listed if name.startswith("REELMESH_")} == set(settings)
    for name, default in settings.items():
        value = json.dumps([str(item) for item in default]) if isinstance(default, list) else default
        shown = "none" if value is None else "empty" if value == "" else f"`{value}`"
        assert listed[name][0] == shown, name


def test_only_variables_that_exist_are_named() -> None:
    known = {name for name in rows("docs/settings.md") if name.startswith("REELMESH_")}
    for page in PAGES:
        named = set(re.findall(r"REELMESH_[A-Z][A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
        assert named <= known, page.name


def test_every_metric_is_listed_as_it_is_exposed() -> None:
    made = {family.name + ("_total" if family.type == "counter" else ""): family for family in metrics()}
    listed = {name: cells for name, cells in rows("docs/observability.md").items() if name.startswith("reelmesh_")}
    assert set(listed) == {*made, UNREADABLE}
    assert {name: listed[name][0] for name in made} == {name: family.type for name, family in made.items()}
    labels = {metric._name: list(metric._labelnames) for metric in vars(telemetry).values() if is_metric(metric)}
    for name, cells in listed.items():
        assert [label for label in cells[1].split(", ") if label] == labels.get(name.removesuffix("_total"), []), name


def metrics() -> list[Any]:
    return list(telemetry.METRICS.collect())


def is_metric(value: object) -> bool:
    return isinstance(value, MetricWrapperBase)


def test_every_field_of_a_model_card_is_listed() -> None:
    listed = rows("docs/model-repository.md")
    of_card = [name for name, cells in listed.items() if len(cells) == CARD_CELLS]
    said_before = tuple(f"{way}.*.{part}." for way in ("adapters", "parts") for part in ("source", "license"))
    assert of_card == [name for name, _ in fields(ModelCard) if not name.startswith(said_before)]
    assert set(TASKS) <= set(listed)


@pytest.mark.parametrize(
    "request_type",
    [VideoRequest, VoiceRequest, AnimationRequest, MusicPieceRequest, PodcastRequest, SubtitlesRequest],
)
def test_every_field_of_a_pipelines_request_is_listed(request_type: type[BaseModel]) -> None:
    cells = re.findall(r"^\| (`[^|]+)\|", text_of("docs/graphs.md"), re.M)
    listed = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    groups = {"captions"}  # its one field says it all
    assert {name for name, _ in fields(request_type)} - groups <= listed


def test_every_engine_error_and_exit_code_is_listed() -> None:
    assert set(ENGINES) <= set(rows("docs/engines.md"))
    listed = rows("docs/edge.md")
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.ReelmeshError) and error is not errors.ReelmeshError:
            cells = listed[error.code]
            assert cells[:2] == [str(error.http_status), f"`{error.grpc_status}`"], error.code
            assert cells[2].startswith("yes") is error.retryable, error.code
    for code, words in EXIT_CODES.items():
        assert re.search(rf"^\| {code.value} \|", text_of("docs/jobs.md"), re.M), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_fit_the_code(page: Path) -> None:
    for body in blocks(page, "python"):
        ast.parse(body if not body.startswith(" ") else f"{{{body}}}")
        if body.startswith('"""'):
            exec(body, {"__name__": page.stem})  # noqa: S102  a whole module: its imports and types must exist
    for body in blocks(page, "yaml"):
        example: Mapping[str, Any] = yaml.safe_load(body)
        if "backend" in example:
            ModelCard.model_validate(example)


def bodies(page: Path) -> Iterator[dict[str, Any]]:
    """Jobs that examples submit: objects with ``type`` and ``input``, and what BullMQ's ``add`` is given."""
    for block in blocks(page, "sh", "json", "js", "python"):
        text = block.replace("""'"$REF"'""", "reference")
        for start, found in objects(text):
            named = re.search(r'\badd\(\s*"(\w+)",\s*$', text[:start])
            body = found if named is None or "input" in found else {"input": found}
            if named is not None:
                body = {"type": named[1], **body}
            if {"type", "input"} <= body.keys():
                yield body


def objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Outermost ``{...}`` that hold fields and values, whichever of the languages they are written in, with where."""
    depth = start = 0
    for index, char in enumerate(text):
        if char == "{":
            start = start if depth else index
            depth += 1
        elif char == "}":
            depth -= 1
            if not depth:
                with suppress(yaml.YAMLError):
                    yield start, yaml.safe_load(text[start : index + 1])


def test_every_job_in_an_example_is_one_that_the_mesh_would_take() -> None:
    types = job_types(load_repository([ROOT / "model_repository"]))
    ref = ArtifactRef(sha256="0" * 64, size_bytes=9, media_type="audio/flac", name="recording.flac").model_dump()
    seen: list[str] = []
    for page in PAGES:
        for body in bodies(page):
            # A file is what an upload answered, in whatever variable the example keeps it.
            named = {name: ref for name in ("media",) if isinstance(body["input"].get(name), str)}
            types[JobRequest.model_validate(body).type].request.model_validate({**body["input"], **named})
            seen.append(page.name)
    assert set(seen) >= {"intakes.md", "jobs.md", "webhooks.md"}
    assert seen.count("intakes.md") > 1, "Redis and BullMQ"


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < MAX_PICTURE_BYTES, picture.name
