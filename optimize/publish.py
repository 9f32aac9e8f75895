"""Puts an exported file into the model repository as its next version; the last step of optimize.run.

The one invariant: a version folder appears whole, by one rename, or not at all; older versions are never
touched.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from optimize.report import REPORT_FILE, Report
from optimize.report_text import markdown
from serving.errors import Conflict

MODEL_FILE: Final = "model.onnx"
STAGING: Final = ".publishing-"


def digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def next_version(versions: Sequence[int]) -> int:
    """One above the newest."""
    return max(versions, default=0) + 1


def publish(model_folder: Path, files: Sequence[Path], report: Report, texts: Mapping[str, str]) -> Path:
    """Make ``<version>/`` with the files and the report; texts, such as config.pbtxt, go beside it first.

    Raises:
        Conflict: somebody else published that version in the meantime.
    """
    staging = model_folder / f"{STAGING}{os.getpid()}"
    target = model_folder / str(report.version)
    try:
        staging.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, staging / file.name)
        write_report(staging, report)
        for name, text in texts.items():
            replace_text(model_folder / name, text)
        staging.rename(target)
    except OSError as error:
        if target.exists():
            raise Conflict(
                f"version {report.version} appeared meanwhile", field=str(target), fix="run it again"
            ) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
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
