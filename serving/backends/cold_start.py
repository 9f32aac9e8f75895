"""ColdStart: what it took until a model could answer, kept per model on the node; written by replicas, read by the CLI.

The one invariant: a record tells of one load on this machine; the newest replaces the one before.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from serving.errors import foreign_text

log = structlog.get_logger()

COLD_STARTS: Final = "cold_starts"
"""Folder of the records in the mesh's home."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds by part.

    Attributes:
        download_s: fetching weights to the node's cache; 0 where they were there.
        load_s: reading them into memory and onto the device.
        warm_up_s: the first request, run before any other; None where there was none.
        weights_bytes: size of the files.
        device: ``cpu`` or ``cuda:N``.
        precision: of the weights in memory.
        source: where the weights came from, with their revision.
        measured_at: Unix seconds.
    """

    download_s: float
    load_s: float
    warm_up_s: float | None = None
    weights_bytes: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    source: str = ""
    measured_at: float = field(default_factory=time.time)

    @property
    def total_s(self) -> float:
        """Until the first request could be answered."""
        return self.download_s + self.load_s + (self.warm_up_s or 0.0)

    def warmed(self, seconds: float) -> "ColdStart":
        """The same with its warm-up."""
        return replace(self, warm_up_s=seconds)

    def save(self, folder: Path, model: str) -> None:
        """Keep it as ``<folder>/<model>.json``; appears whole or not at all, whoever else keeps one at the same time.

        A disk that is full or read-only keeps none: a model does not fail over its record.
        """
        partial = folder / f".{model}.{os.getpid()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
            partial.replace(folder / f"{model}.json")
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            log.warning("cold_start_not_kept", model=model, error=foreign_text(error))


def read_cold_start(folder: Path, model: str) -> ColdStart | None:
    """The newest record of a model; None where there is none that can be read."""
    try:
        return ColdStart(**json.loads((folder / f"{model}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
