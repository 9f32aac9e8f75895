"""Shows a job's way to its end: a live bar on a terminal, one line per stage elsewhere; used by submit, watch and demo.

The one invariant: everything here goes to stderr, so that stdout holds results alone. Why a job failed is left to the
command, which says it once, by :func:`outcome`.
"""

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from serving.cli.client import JobsClient
from serving.gateway.views import JobView
from serving.jobs.records import EventRecord, StageState
from serving.jobs.types import JobState

T = TypeVar("T")

STAGE_MARKS: Final = {
    StageState.DONE: "[green]✓[/]",
    StageState.SKIPPED: "[dim]–[/]",
    StageState.FAILED: "[red]✗[/]",
    StageState.CANCELLED: "[yellow]✗[/]",
}


class Display(Protocol):
    """What shows events."""

    def show(self, event: EventRecord) -> None:
        """Take one event."""

    def bar(self, label: str, total: int) -> Callable[[int], None]:
        """A bar for bytes; the answer moves it."""


class Interrupted(Exception):
    """Ctrl-C was pressed."""


def words(name: str) -> str:
    """``lip_sync`` as people say it."""
    return name.replace("_", " ")


class _Clock:
    """When each stage began, by the mesh's own clock."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}

    def line(self, event: EventRecord) -> str | None:
        """A finished stage in one line of rich markup, or None."""
        if event.kind != "stage" or event.stage is None:
            return None
        if event.stage_state is StageState.RUNNING:
            self._began.setdefault(event.stage, event.at)
            return None
        mark = STAGE_MARKS.get(event.stage_state or StageState.DONE, "")
        if event.stage_state is StageState.SKIPPED:
            return f"{mark} {words(event.stage):<16} [dim]skipped[/]"
        seconds = event.at - self._began.get(event.stage, event.at)
        parts = f"  [dim]{event.parts} parts[/]" if (event.parts or 0) > 1 else ""
        return f"{mark} {words(event.stage):<16} {seconds:6.1f} s{parts}"


class LiveDisplay:
    """One bar that moves, and a line for each stage that has ended above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._clock = _Clock()
        self._task = progress.add_task("waiting", total=100.0)
        self._stage: str | None = None
        self._ended = False

    def show(self, event: EventRecord) -> None:
        """Take one event."""
        if (line := self._clock.line(event)) is not None:
            self._progress.console.print(line)
        if event.kind == "state" and event.reason and event.state is not JobState.FAILED:
            self._progress.console.print(f"[yellow]{event.state}[/] {event.reason}", soft_wrap=True)
        if event.stage_state is StageState.RUNNING or event.kind == "progress":
            self._stage = event.stage
        label = words(self._stage or str(event.state))
        if event.stage == self._stage and (event.parts or 0) > 1:
            label += f" {event.parts_done}/{event.parts}"
        self._progress.update(self._task, completed=event.progress, description=label)
        if event.is_final:
            self._ended = True
            self._progress.update(self._task, visible=False)

    def bar(self, label: str, total: int) -> Callable[[int], None]:
        """A bar of its own that disappears when it is full."""
        self._progress.update(self._task, visible=False)
        task = self._progress.add_task(label, total=max(1, total))

        left = total

        def moved(count: int) -> None:
            nonlocal left
            left -= count
            self._progress.advance(task, count)
            if left <= 0:
                self._progress.update(task, visible=False)
                self._progress.update(self._task, visible=not self._ended)

        return moved


class PlainDisplay:
    """Lines only, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = _Clock()

    def show(self, event: EventRecord) -> None:
        """Take one event."""
        if (line := self._clock.line(event)) is not None:
            self._console.print(line)
        elif event.kind == "state" and event.state is not JobState.FAILED:
            self._console.print(f"{words(event.state)}{f': {event.reason}' if event.reason else ''}", soft_wrap=True)

    def bar(self, label: str, total: int) -> Callable[[int], None]:
        """Says once what moves."""
        self._console.print(f"{label} ({total:,} bytes)")
        return lambda _count: None


class SilentDisplay:
    """Nothing."""

    def show(self, event: EventRecord) -> None:
        """Take one event."""

    def bar(self, label: str, total: int) -> Callable[[int], None]:
        """Nobody sees it."""
        return lambda _count: None


@contextlib.contextmanager
def display(*, silent: bool = False) -> Iterator[Display]:
    """The display that fits stderr: live on a terminal, plain elsewhere, nothing when ``silent``."""
    console = Console(stderr=True, highlight=False)
    if silent:
        yield SilentDisplay()
    elif not console.is_terminal:
        yield PlainDisplay(console)
    else:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=36, complete_style="dark_orange", finished_style="green"),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            yield LiveDisplay(progress)


async def follow(client: JobsClient, job_id: str, shown: Display) -> JobView:
    """Show the job's events up to its end and return it as it ended."""
    async for event in client.events(job_id):
        shown.show(event)
    return await client.job(job_id)


async def until_interrupted(work: Awaitable[T]) -> T:
    """Run ``work``; the first Ctrl-C stops it and raises :class:`Interrupted` instead of ending the program."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    pressed = asyncio.Event()

    def press() -> None:
        pressed.set()
        task.cancel()

    # Only the main thread may handle signals; elsewhere the caller's own handling stands.
    handled = threading.current_thread() is threading.main_thread()
    if handled:
        loop.add_signal_handler(signal.SIGINT, press)
    try:
        return await task
    except asyncio.CancelledError:
        if pressed.is_set():
            raise Interrupted from None
        raise
    finally:
        if handled:
            loop.remove_signal_handler(signal.SIGINT)


async def ask_to_cancel(client: JobsClient, job: JobView) -> JobView | None:
    """After a Ctrl-C: ask on a terminal whether to cancel; None leaves the job running."""
    console = Console(stderr=True, highlight=False)
    if sys.stdin.isatty() and console.is_terminal:
        question = f"Cancel job {job.id}? [y]es, or anything else to leave it running: "
        try:
            answer = await asyncio.to_thread(console.input, question, markup=False)
        except (EOFError, KeyboardInterrupt):
            answer = ""
        if answer.strip().lower().startswith("y"):
            return await _cancelled(client, job)
    console.print(
        f"left running: `reelmesh jobs watch {job.id}` takes it up, `reelmesh jobs cancel {job.id}` ends it",
        soft_wrap=True,
    )
    return None


async def _cancelled(client: JobsClient, job: JobView) -> JobView:
    await client.cancel(job.id)
    deadline = time.monotonic() + 5.0
    ended = await client.job(job.id)
    while not ended.is_final and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        ended = await client.job(job.id)
    return ended


async def files_of(client: JobsClient, job: JobView, folder: Path, shown: Display) -> AsyncIterator[tuple[str, Path]]:
    """Download the job's files one after another: the name in the job, and where the file lies now."""
    taken: set[str] = set()
    for name, file in job.artifacts.items():
        own = file.name if file.name not in {".", "..", *taken} else f"{name}-{file.name}".replace("/", "_")
        taken.add(own)
        moved = shown.bar(f"fetching {own}", file.size_bytes)
        yield name, await client.download(file, folder / own, moved=moved)


def outcome(job: JobView) -> str:
    """One line about how the job ended."""
    if job.state is JobState.COMPLETED:
        took = (job.finished_at or 0) - (job.started_at or 0)
        return f"completed in {took:.1f} s"
    if job.state is JobState.FAILED:
        return f"failed: {job.error}"
    return f"is {words(job.state)}"
