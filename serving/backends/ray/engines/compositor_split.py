"""The split screen: two panels of joined clips, their frames lighting up while their person speaks.

The one invariant: a frame's light is a stream of stills with durations, so the cost of a change does not depend on how
many there are, and every length is a whole number of frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.compositor_art import AMBER, TEAL, Label, background, panel_frames
from serving.backends.ray.engines.compositor_plan import TO_YUV, Plan
from serving.media.ffmpeg import concat_input, concat_list
from serving.media.layout import Box, SplitLayout, split_screen_layout
from serving.protocol.tasks import Span, SplitScreen

if TYPE_CHECKING:
    from PIL import Image

LIGHT_STEPS: Final = 5
"""Pictures from silent to speaking, one frame each: a fifth of a second at 25 fps, felt rather than seen."""

SHORTEST_SILENCE_S: Final = 0.6
"""A shorter pause of one person does not dim their panel."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """Size, rate and length of the programme."""

    width: int
    height: int
    fps: int
    duration_s: float

    @property
    def frames(self) -> int:
        """Frames of the whole programme, at least one."""
        return max(1, round(self.duration_s * self.fps))


def merged(spans: Sequence[Span], shortest_gap_s: float = SHORTEST_SILENCE_S) -> list[tuple[float, float]]:
    """Spans in order, those nearer than the gap joined."""
    joined: list[tuple[float, float]] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        if joined and span.start_s - joined[-1][1] < shortest_gap_s:
            joined[-1] = (joined[-1][0], max(joined[-1][1], span.end_s))
        else:
            joined.append((span.start_s, span.end_s))
    return joined


def light_levels(spans: Sequence[Span], canvas: Canvas) -> list[tuple[int, int]]:
    """How lit a panel is over time.

    Returns:
        ``(level, frames)`` in order, levels 0 to ``LIGHT_STEPS - 1``; the frames add up to the programme.
    """
    top = LIGHT_STEPS - 1
    target = [0] * canvas.frames
    for start_s, end_s in merged(spans):
        first = max(0, round(start_s * canvas.fps) - top)
        last = min(canvas.frames, round(end_s * canvas.fps))
        target[first:last] = [top] * max(0, last - first)
    runs: list[tuple[int, int]] = []
    level = target[0]
    for wanted in target:
        level += (wanted > level) - (wanted < level)
        if runs and runs[-1][0] == level:
            runs[-1] = (level, runs[-1][1] + 1)
        else:
            runs.append((level, 1))
    return runs


def light_list(levels: Sequence[tuple[int, int]], stills: Sequence[Path], fps: int) -> str:
    """The concat demuxer's list that shows each level's still for its frames."""
    lines = ["ffconcat version 1.0"]
    for level, frames in levels:
        lines += [
            f"file 'file:{_quoted(stills[level])}'",
            f"option framerate {fps}",
            f"duration {frames / fps:.6f}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "'\\''")


def draw_split(scene: SplitScreen, canvas: Canvas, folder: Path, *, captions: bool) -> SplitLayout:
    """Draw all stills of a split screen into ``folder``; blocks for some 0.3 s."""
    layout = split_screen_layout(canvas.width, canvas.height, heading=bool(scene.heading.strip()), captions=captions)
    ground = background(canvas.width, canvas.height, layout, scene.heading)
    ground.save(folder / "ground.png", compress_level=1)
    sides = (
        (scene.left.name, scene.left.title, AMBER, layout.left, "left"),
        (scene.right.name, scene.right.title, TEAL, layout.right, "right"),
    )
    for name, title, accent, box, side in sides:
        label = Label(name, title, accent)
        _save_frames(panel_frames(ground, box, layout.halo, layout.scale, label, LIGHT_STEPS), folder, side)
    return layout


def _save_frames(frames: Sequence["Image.Image"], folder: Path, side: str) -> None:
    for level, frame in enumerate(frames):
        frame.save(still_path(folder, side, level), compress_level=1)


def still_path(folder: Path, side: str, level: int) -> Path:
    """Where a panel's still of one light level lies."""
    return folder / f"{side}{level}.png"


def plan_split(
    scene: SplitScreen, clips: tuple[Sequence[Path], Sequence[Path]], canvas: Canvas, folder: Path,
    layout: SplitLayout,
) -> Plan:  # fmt: skip
    """Inputs and filters of a split screen whose stills lie in ``folder``; writes the concat lists there."""
    plan = Plan()
    current = plan.add_still(folder / "ground.png", canvas.fps, "ground")
    sides = (
        ("left", scene.left.speaking, clips[0], layout.left),
        ("right", scene.right.speaking, clips[1], layout.right),
    )
    for side, _, files, box in sides:
        listed = folder / f"{side}.txt"
        listed.write_text(concat_list(files), encoding="utf-8")
        current = _add_panel(plan, plan.add_input(concat_input(listed)), box, canvas, current, side)
    for side, speaking, _, box in sides:
        listed = folder / f"{side}_light.txt"
        stills = [still_path(folder, side, level) for level in range(LIGHT_STEPS)]
        listed.write_text(light_list(light_levels(speaking, canvas), stills, canvas.fps), encoding="utf-8")
        number = plan.add_input(concat_input(listed))
        light = plan.chain(f"[{number}:v]", f"{TO_YUV},format=yuva420p", f"{side}_light")
        place = f"overlay={box.x - layout.halo}:{box.y - layout.halo}:format=yuv420"
        current = plan.chain(f"[{current}][{light}]", place, f"{side}_lit")
    plan.video = current
    return plan


def _add_panel(plan: Plan, number: int, box: Box, canvas: Canvas, current: str, side: str) -> str:
    """Scale a clip to cover its panel (nothing happens where it fits), hold its last frame, and put it down."""
    cover = (
        f"scale={box.width}:{box.height}:force_original_aspect_ratio=increase:flags=bicubic,"
        f"crop={box.width}:{box.height},setsar=1,fps={canvas.fps},format=yuv420p,"
        f"tpad=stop_mode=clone:stop_duration={canvas.duration_s:.3f}"
    )
    clip = plan.chain(f"[{number}:v]", cover, f"{side}_clip")
    return plan.chain(f"[{current}][{clip}]", f"overlay={box.x}:{box.y}:format=yuv420", f"{side}_placed")
