"""CompositorEngine: pictures, sound and captions become the finished MP4 and its thumbnail; one per render replica.

The one invariant: one ffmpeg run makes the file (long sequences are faded in groups before it), and it ends with the
call.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.compositor_art import background
from serving.backends.ray.engines.compositor_plan import Output, Plan, command
from serving.backends.ray.engines.compositor_sequence import (
    MOST_INPUTS,
    groups,
    plan_recording,
    plan_sequence,
    plan_video,
    sequence_length,
)
from serving.backends.ray.engines.compositor_split import Canvas, draw_split, plan_split
from serving.backends.ray.engines.compositor_thumbnail import choose_thumbnail
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput
from serving.media.caption_text import clean
from serving.media.ffmpeg import run_ffmpeg
from serving.media.layout import split_screen_layout
from serving.media.probe import probe
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    CompositionRequest,
    CompositionResult,
    SourceVideo,
    SplitScreen,
    TaskRequest,
)
from serving.protocol.tasks import (
    Sequence as SceneSequence,
)
from serving.repository.model import Model

TIME_LIMIT_S = 4 * 3600.0


class CompositorEngine:
    """Builds split screens, sequences and captioned sources with ffmpeg and Pillow; needs no weights."""

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._artifacts = context.artifacts
        self._scratch = context.scratch
        self._threads = max(2, context.threads)

    async def run(self, request: TaskRequest, call: Call) -> CompositionResult:
        """Make the film.

        Raises:
            BadInput: no audio for a scene that has none of its own, or a clip that is not video.
            EngineFailed: ffmpeg failed.
        """
        if not isinstance(request, CompositionRequest):
            raise BadInput(f"the compositor cannot run a {type(request).__name__}", fix="send a composition")
        if request.audio is None and not isinstance(request.scene, SourceVideo):
            raise BadInput("the film has no sound", field="audio", fix="give an audio artifact")
        with tempfile.TemporaryDirectory(prefix="compose-", dir=self._scratch) as name:
            return await _Composition(self._artifacts, request, call, Path(name), self._threads).make()

    async def close(self) -> None:
        """Nothing stays loaded."""


class _Composition:
    """One request in the making, in a folder of its own."""

    def __init__(
        self, artifacts: ArtifactStore, request: CompositionRequest, call: Call, folder: Path, threads: int
    ) -> None:
        self._artifacts = artifacts
        self._request = request
        self._call = call
        self._folder = folder
        self._threads = threads
        self._canvas = Canvas(request.width, request.height, request.fps, request.duration_s)

    async def make(self) -> CompositionResult:
        """Plan, render, choose a thumbnail, store both."""
        request = self._request
        plan, title = await self._plan(request.scene)
        if request.audio is not None:
            audio = await self._artifacts.local_path(request.audio)
            plan.audio = f"{plan.add_input(['-i', f'file:{audio}'])}:a:0"
        if request.burn_in is not None:
            plan.burn_in(await self._artifacts.local_path(request.burn_in))
        film, picture = self._folder / "film.mp4", self._folder / "thumbnail.jpg"
        await self._render(plan, await self._output(film, title))
        self._call.checkpoint()
        await in_thread(self._call, lambda: choose_thumbnail(film, picture, request.duration_s))
        made = await probe(film)
        return CompositionResult(
            video=await self._artifacts.put_file(film, media_type="video/mp4"),
            thumbnail=await self._artifacts.put_file(picture, media_type="image/jpeg"),
            duration_s=made.duration_s,
        )

    async def _output(self, path: Path, title: str) -> Output:
        request = self._request
        return Output(
            path,
            request.duration_s,
            request.fps,
            subtitles=await self._artifacts.local_path(request.subtitles) if request.subtitles else None,
            language=request.language,
            subtitles_shown=request.burn_in is None,
            title=clean(title),
            threads=self._threads,
        )

    async def _render(self, plan: Plan, output: Output) -> None:
        await run_ffmpeg(command(plan, output), checkpoint=self._call.checkpoint, timeout_s=TIME_LIMIT_S)

    async def _plan(self, scene: SplitScreen | SceneSequence | SourceVideo) -> tuple[Plan, str]:
        if isinstance(scene, SplitScreen):
            return await self._split(scene), scene.heading
        if isinstance(scene, SceneSequence):
            clips = await self._paths(scene.clips, "scene.clips")
            return await self._sequence(clips, scene.transition_s), ""
        return await self._source(scene.video), scene.video.name

    async def _split(self, scene: SplitScreen) -> Plan:
        captions = self._request.burn_in is not None
        layout = await in_thread(self._call, lambda: draw_split(scene, self._canvas, self._folder, captions=captions))
        self._call.checkpoint()
        left = await self._paths(scene.left.clips, "scene.left.clips")
        right = await self._paths(scene.right.clips, "scene.right.clips")
        return plan_split(scene, (left, right), self._canvas, self._folder, layout)

    async def _sequence(self, clips: Sequence[Path], transition_s: float, level: int = 0) -> Plan:
        """Fade up to :data:`MOST_INPUTS` clips; more are faded in groups, whose films are faded again."""
        durations = [await self._length(clip) for clip in clips]
        if len(clips) <= MOST_INPUTS:
            return plan_sequence(clips, durations, transition_s, self._canvas)
        films: list[Path] = []
        for number, group in enumerate(groups(len(clips))):
            part, length = [clips[index] for index in group], [durations[index] for index in group]
            film = self._folder / f"group{level}_{number}.mp4"
            await self._render_group(part, length, transition_s, film)
            films.append(film)
        return await self._sequence(films, transition_s, level + 1)

    async def _render_group(
        self, clips: Sequence[Path], durations_s: Sequence[float], transition_s: float, film: Path
    ) -> None:
        plan = plan_sequence(clips, durations_s, transition_s, self._canvas)
        length = sequence_length(durations_s, transition_s, self._canvas.fps)
        await self._render(plan, Output(film, length, self._canvas.fps, threads=self._threads))

    async def _source(self, ref: ArtifactRef) -> Plan:
        path = await self._artifacts.local_path(ref)
        try:
            info = await probe(path)
        except BadInput as error:
            raise BadInput(error.problem, field="scene.video", fix=error.fix) from error
        sound = info.first("audio") is not None
        if info.first("video") is not None:
            return plan_video(path, self._canvas, with_sound=sound)
        if not sound:
            raise BadInput("the source holds neither picture nor sound", field="scene.video")
        ground = self._folder / "ground.png"
        await in_thread(self._call, lambda: self._draw_ground(ground))
        return plan_recording(path, ground, self._canvas)

    def _draw_ground(self, path: Path) -> None:
        layout = split_screen_layout(self._canvas.width, self._canvas.height, heading=False, captions=False)
        background(self._canvas.width, self._canvas.height, layout, "").save(path, compress_level=1)

    async def _paths(self, refs: Sequence[ArtifactRef], field: str) -> list[Path]:
        """Local files of clips; the first is probed so that a wrong one is the caller's error, not ffmpeg's."""
        paths = [await self._artifacts.local_path(ref) for ref in refs]
        try:
            info = await probe(paths[0])
        except BadInput as error:
            raise BadInput(error.problem, field=f"{field}[0]", fix=error.fix) from error
        if info.first("video") is None:
            raise BadInput("the clip holds no picture", field=f"{field}[0]", fix="give video clips")
        return paths

    async def _length(self, clip: Path) -> float:
        """A clip's length in seconds, from its frames where the container counts them."""
        info = await probe(clip)
        video = info.first("video")
        if video is None:
            raise BadInput("a clip holds no picture", field="scene.clips", fix="give video clips")
        return video.frames / video.fps if video.frames and video.fps else video.duration_s
