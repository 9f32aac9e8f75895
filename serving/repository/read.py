"""Reads one model folder (config.pbtxt, model.yaml, version folders) into a RawModel; used by repository.load and lint.

The one invariant: reading never raises for what a person wrote; everything wrong becomes a finding, so that lint can
report all problems at once. Files over :data:`MAX_FILE_BYTES` are not read.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf import text_format
from pydantic import ValidationError
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.card_problems import findings_from
from serving.repository.derive import (
    RAY_BACKEND,
    derived_card,
    file_backend,
    is_version,
    tensor_engine,
    triton_backend,
)
from serving.repository.findings import Finding
from serving.repository.model import TENSOR_TASK, ModelCard
from serving.repository.yaml_lines import Lines, YamlProblem, load_yaml

CONFIG_FILE: Final = "config.pbtxt"
CARD_FILE: Final = "model.yaml"
MAX_FILE_BYTES: Final = 1 << 20
"""Largest config.pbtxt or model.yaml; Triton's longest published configurations are some 20 kB."""


@dataclass(slots=True)
class RawModel:
    """What a model folder says, before the checks.

    Attributes:
        name: the folder's name.
        folder: absolute path.
        config: parsed config.pbtxt; None where it cannot be read.
        card: parsed model.yaml, or a derived one for a plain Triton folder; None where it cannot be read.
        has_card: whether there is a model.yaml.
        versions: numeric version folders, ascending.
        config_text: text of config.pbtxt, for finding lines.
        card_lines: lines of model.yaml.
        findings: what is wrong with the files themselves.
    """

    name: str
    folder: Path
    config: ModelConfig | None = None
    card: ModelCard | None = None
    has_card: bool = False
    versions: tuple[int, ...] = ()
    config_text: str = ""
    card_lines: Lines = field(default_factory=lambda: Lines({}))
    findings: list[Finding] = field(default_factory=list)

    @property
    def config_file(self) -> Path:
        """Where config.pbtxt is or should be."""
        return self.folder / CONFIG_FILE

    @property
    def card_file(self) -> Path:
        """Where model.yaml is or should be."""
        return self.folder / CARD_FILE

    def config_line(self, text: str) -> int:
        """First line of config.pbtxt that begins with ``text``, else one that holds it as a word; 1 where none does."""
        word = rf"{re.escape(text)}(?![\w.])"
        lines = [line.partition("#")[0] for line in self.config_text.splitlines()]
        begins = (number for number, line in enumerate(lines, start=1) if re.match(word, line))
        holds = (number for number, line in enumerate(lines, start=1) if re.search(rf"(?<![\w.]){word}", line))
        return next(begins, next(holds, 1))


def read_model(folder: Path) -> RawModel:
    """Read one folder of a repository.

    A folder without model.yaml is a plain Triton model, or one of a Ray replica where config.pbtxt says
    ``backend: "ray"``. One without config.pbtxt is accepted where its newest version holds a file Triton knows, since
    the backend completes such a configuration itself.
    """
    raw = RawModel(folder.name, folder, versions=_versions(folder))
    raw.has_card = raw.card_file.is_file()
    if raw.config_file.is_file():
        _read_config(raw)
    else:
        _guess_config(raw)
    if raw.has_card:
        _read_card(raw)
    elif raw.config is not None:
        backend = triton_backend(raw.config)
        raw.card = derived_card(backend, tensor_engine(folder, raw.versions, raw.config))
    return raw


def _versions(folder: Path) -> tuple[int, ...]:
    return tuple(sorted(int(path.name) for path in folder.iterdir() if is_version(path.name) and path.is_dir()))


def _read_text(raw: RawModel, file: Path) -> str | None:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raw.findings.append(
                Finding(file, 0, "-", f"the file is larger than {MAX_FILE_BYTES >> 20} MiB", "make it smaller")
            )
            return None
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raw.findings.append(Finding(file, 0, "-", f"not UTF-8 at byte {error.start}", "save it as plain UTF-8 text"))
    except OSError as error:
        raw.findings.append(
            Finding(file, 0, "-", f"cannot be read: {error.strerror}", "make it a readable file of this user")
        )
    return None


def _read_config(raw: RawModel) -> None:
    text = _read_text(raw, raw.config_file)
    if text is None:
        return
    raw.config_text = text
    try:
        raw.config = text_format.Parse(text, ModelConfig())
    except (text_format.ParseError, ValueError) as error:  # ValueError: an enum's number of more than 32 bits
        line = (error.GetLine() if isinstance(error, text_format.ParseError) else None) or 1
        problem = re.sub(r"^\d+:\d+ *: *", "", str(error))
        problem = re.sub(r"^Message type \"inference\.(\w+)\"", r"\1", " ".join(problem.split())).rstrip(".")
        fix = "write it as Triton's model configuration describes"
        raw.findings.append(Finding(raw.config_file, line, "-", problem, fix))
        return
    if raw.config.name not in ("", raw.name):
        raw.findings.append(
            Finding(
                raw.config_file,
                raw.config_line("name"),
                "name",
                f"{raw.config.name!r} is not the folder's name",
                f"write {raw.name!r} or leave name out",
            )
        )
    raw.config.name = raw.name
    if not triton_backend(raw.config):
        raw.config.backend = file_backend(raw.folder, raw.versions, raw.config)


def _guess_config(raw: RawModel) -> None:
    if raw.config_file.is_symlink():
        fix = "mend the link, or remove it"
        raw.findings.append(Finding(raw.config_file, 0, "-", "the file is missing: a link that leads nowhere", fix))
    elif backend := file_backend(raw.folder, raw.versions):
        raw.config = ModelConfig(name=raw.name, backend=backend)
        fix = "nothing, if Triton's own completion is wanted; else write one"
        raw.findings.append(Finding(raw.config_file, 0, "-", "the file is missing", fix, "warning"))
    elif raw.has_card:
        fix = "add a config.pbtxt with the model's input and output"
        raw.findings.append(Finding(raw.config_file, 0, "-", "the file is missing", fix))
    else:
        problem = "not a model: neither config.pbtxt nor model.yaml is in the folder"
        raw.findings.append(Finding(raw.folder, 0, "-", problem, "add them, or move the folder out of the repository"))


def _read_card(raw: RawModel) -> None:
    text = _read_text(raw, raw.card_file)
    if text is None:
        return
    try:
        data, raw.card_lines = load_yaml(text)
        raw.card = _with_engine(raw, ModelCard.model_validate(data if data is not None else {}))
    except YamlProblem as problem:
        raw.findings.append(Finding(raw.card_file, problem.line, problem.field, problem.problem, problem.fix))
    except ValidationError as error:
        raw.findings.extend(findings_from(error, raw.card_file, raw.card_lines, ModelCard))


def _with_engine(raw: RawModel, card: ModelCard) -> ModelCard:
    """A tensor model moved from Triton to Ray keeps the engine ``tensor``, which then means: as its files say."""
    if raw.config is None or (card.backend, card.task, card.engine) != (RAY_BACKEND, TENSOR_TASK, TENSOR_TASK):
        return card
    engine = tensor_engine(raw.folder, raw.versions, raw.config)
    return card.model_copy(update={"engine": engine}) if engine else card
