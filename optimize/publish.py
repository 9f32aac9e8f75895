"""Puts an exported file into the model repository as its next version; the last step of optimize.run.

The one invariant: a version folder appears whole, by one rename, or not at all; older versions are never
touched.
"""

import errno
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from optimize.report import REPORT_FILE, Report, read_report
from optimize.report_text import markdown
from serving.errors import Conflict, EngineFailed
from serving.repository.derive import is_version
from serving.repository.part_file import PART_FILE
from serving.repository.plan_file import onnx_digest

MODEL_FILE: Final = "model.onnx"
STAGING: Final = ".publishing-"


def next_version(versions: Sequence[int]) -> int:
    """One above the newest."""
    return max(versions, default=0) + 1


def published(folder: Path) -> Iterator[tuple[Path, Report]]:
    """Version folders of a model or part that have a report, newest first."""
    for number in sorted(versions(folder), reverse=True):
        if (report := read_report(folder / str(number))) is not None:
            yield folder / str(number), report


def versions(folder: Path) -> list[int]:
    """Numbers of a model's versions; none where there is no such folder."""
    return [int(path.name) for path in folder.iterdir() if is_version(path.name)] if folder.is_dir() else []


def is_whole(version: Path, report: Report) -> bool:
    """Whether every file of a part's version is there with the bytes that its report tells of."""
    files = [version / PART_FILE, *(version / variant.name for variant in report.variants)]
    if not all(file.is_file() for file in files):
        return False
    return all(onnx_digest(version / variant.name) == variant.onnx_sha256 for variant in report.variants)


def publish(model_folder: Path, files: Sequence[Path], report: Report, texts: Mapping[str, str]) -> Path:
    """Make ``<version>/`` with the files and the report; texts, such as config.pbtxt, go beside it first.

    Raises:
        Conflict: somebody else published that version in the meantime; nothing was changed.
        EngineFailed: the disk is full, or the repository cannot be written.
    """
    target = model_folder / str(report.version)
    try:
        model_folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise FileExistsError(errno.EEXIST, "it is there")
        # A name of nobody else's: process numbers are equal in containers that share a repository.
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=model_folder) as scratch:
            staging = Path(scratch) / target.name
            staging.mkdir()
            for file in files:
                shutil.copyfile(file, staging / file.name)
            write_report(staging, report)
            for name, text in texts.items():
                replace_text(model_folder / name, text)
            staging.rename(target)
    except OSError as error:
        if target.exists() and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise Conflict(
                f"version {report.version} appeared meanwhile", field=str(target), fix="run it again"
            ) from error
        raise EngineFailed(f"cannot publish: {error.strerror}", field=str(model_folder)) from error
    return target


def write_report(folder: Path, report: Report) -> None:
    """Write both forms."""
    replace_text(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    replace_text(folder / "report.md", markdown(report))


def replace_text(file: Path, text: str) -> None:
    """Write a file by renaming, so that no reader sees half of it."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
