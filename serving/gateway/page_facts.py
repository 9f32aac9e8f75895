"""What the pages say about a job: bars of the timeline, which file is the film, captions; used by pages.

The one invariant: everything here is computed from a job's view and bounded files; nothing is HTML.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import pysubs2
from pydantic import JsonValue

from serving.artifacts.store import ArtifactStore
from serving.errors import ReelmeshError
from serving.gateway.views import ArtifactView, JobView
from serving.jobs.records import StageState
from serving.jobs.states import WAITING, WORKING
from serving.jobs.types import JobState

MAX_READ_BYTES: Final = 512 << 10
"""Longest caption or provenance file shown on a page."""
MAX_CUES: Final = 1000
_MINUTE = 60.0
_NARROWEST: Final = 0.4
"""Least width of a bar in percent, so that a stage of a millisecond can still be seen."""


class Filter(NamedTuple):
    """One tab of the list."""

    label: str
    states: tuple[JobState, ...]


FILTERS: Final = {
    "all": Filter("All", ()),
    "running": Filter("Running", WORKING),
    "waiting": Filter("Waiting", WAITING),
    "completed": Filter("Completed", (JobState.COMPLETED,)),
    "failed": Filter("Failed", (JobState.FAILED,)),
    "cancelled": Filter("Cancelled", (JobState.CANCELLED,)),
}


def state_class(state: JobState) -> str:
    """The colour of a state: waiting, working, completed, failed or cancelled."""
    if state in WAITING:
        return "waiting"
    return "working" if state in WORKING else str(state)


class Bar(NamedTuple):
    """One row of the timeline; ``left`` and ``width`` are percent of the job's time so far."""

    name: str
    state: str
    left: float
    width: float
    seconds: float
    running_since: float | None
    note: str


def bars(job: JobView, now: float) -> list[Bar]:
    """The wait and every stage, placed on the job's time."""
    end = job.finished_at or now
    total = max(end - job.created_at, 1e-6)
    wait_end = job.started_at or end
    rows = [_bar("waiting", "wait", (job.created_at, wait_end), (job.created_at, total), "")]
    for stage in job.stages:
        note = _stage_note(stage.parts_done, stage.parts, stage.tries, stage.models)
        if stage.started_at is None:
            rows.append(Bar(stage.name, stage.state, 0.0, 0.0, 0.0, None, note))
            continue
        span = (stage.started_at, stage.ended_at or end)
        row = _bar(stage.name, stage.state, span, (job.created_at, total), note)
        rows.append(row._replace(running_since=stage.started_at if stage.state == StageState.RUNNING else None))
    return rows


def _bar(name: str, state: str, span: tuple[float, float], scale: tuple[float, float], note: str) -> Bar:
    (start, end), (origin, total) = span, scale
    left = min(100.0 - _NARROWEST, max(0.0, (start - origin) / total * 100))
    width = min(100.0 - left, max(_NARROWEST, (end - start) / total * 100))
    return Bar(name, state, round(left, 3), round(width, 3), max(0.0, end - start), None, note)


def _stage_note(done: int, parts: int, tries: int, models: Sequence[str]) -> str:
    notes = [", ".join(models)]
    if parts > 1:
        notes.append(f"{done} of {parts}" if done < parts else f"{parts} parts")
    if tries > 1:
        notes.append(f"{tries} tries")
    return " · ".join(note for note in notes if note)


@dataclass(frozen=True, slots=True)
class Media:
    """Which of a job's files the page plays and shows."""

    video: ArtifactView | None = None
    audio: ArtifactView | None = None
    captions: ArtifactView | None = None
    thumbnail: ArtifactView | None = None
    provenance: ArtifactView | None = None


def media_of(job: JobView) -> Media:
    """Choose by media type, and by name where two files share one."""

    def first(*types: str, named: str = "") -> ArtifactView | None:
        found = [file for file in job.artifacts.values() if file.media_type.startswith(types)]
        return next((file for file in found if named in file.name.lower()), None)

    return Media(
        video=first("video/"),
        audio=first("audio/"),
        captions=first("text/vtt"),
        thumbnail=first("image/"),
        provenance=first("application/json", named="provenance"),
    )


class Check(NamedTuple):
    """One of the checks a job made on its own files."""

    name: str
    ok: bool
    measured: str
    wanted: str


def checks_of(job: JobView) -> list[Check]:
    """The fact ``checks``, where it is a list of ``{"name", "ok", "measured", "wanted"}``."""
    found = job.output.facts.get("checks") if job.output is not None else None
    return [
        Check(str(each["name"]), each["ok"] is True, str(each.get("measured", "")), str(each.get("wanted", "")))
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict) and {"name", "ok"} <= set(each)
    ]


def facts_of(job: JobView) -> list[tuple[str, str]]:
    """The other facts as words: plain values as they are, lists of them joined, anything else as JSON."""
    facts = job.output.facts if job.output is not None else {}
    shown = {"checks"} if checks_of(job) else set()
    return [(name.replace("_", " "), _fact(value)) for name, value in facts.items() if name not in shown]


def _fact(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


class Cue(NamedTuple):
    """One caption."""

    start_s: float
    clock: str
    text: str


async def captions_of(artifacts: ArtifactStore, file: ArtifactView | None) -> list[Cue]:
    """The captions as text; none when the file is missing, broken or long."""
    text = await _text_of(artifacts, file)
    return [] if text is None else await asyncio.to_thread(_cues, text)


def _cues(text: str) -> list[Cue]:
    try:
        subtitles = pysubs2.SSAFile.from_string(text, format_="vtt")
    except (pysubs2.exceptions.Pysubs2Error, ValueError):
        return []
    cues = []
    for event in subtitles.events[:MAX_CUES]:
        seconds = event.start / 1000
        clock = f"{int(seconds // _MINUTE)}:{int(seconds % _MINUTE):02d}"
        cues.append(Cue(seconds, clock, " ".join(event.plaintext.split())))
    return cues


async def provenance_of(artifacts: ArtifactStore, file: ArtifactView | None) -> str | None:
    """The provenance as indented JSON."""
    text = await _text_of(artifacts, file)
    if text is None:
        return None
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


async def _text_of(artifacts: ArtifactStore, file: ArtifactView | None) -> str | None:
    if file is None or file.size_bytes > MAX_READ_BYTES:
        return None
    try:
        return (await artifacts.get_bytes(file)).decode("utf-8", "replace")
    except ReelmeshError:
        return None
