"""Clips one after another with crossfades, and existing videos or recordings under burnt-in captions.

The one invariant: a crossfade is never longer than half of the shorter clip, so fades do not overlap one another.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from serving.backends.ray.engines.compositor_art import AMBER, INK
from serving.backends.ray.engines.compositor_plan import TO_YUV, Plan, media_input
from serving.backends.ray.engines.compositor_split import Canvas

MOST_INPUTS: Final = 8
"""Clips faded in one ffmpeg run: each holds a decoder and its buffers; longer films are faded in groups first."""


def fades(durations_s: Sequence[float], wanted_s: float, fps: int) -> list[float]:
    """Length of each crossfade, one fewer than clips, in whole frames."""
    return [max(0, round(min(wanted_s, before / 2, after / 2) * fps)) / fps for before, after in pairwise(durations_s)]


def sequence_length(durations_s: Sequence[float], transition_s: float, fps: int) -> float:
    """Length in seconds of clips joined by crossfades."""
    return sum(durations_s) - sum(fades(durations_s, transition_s, fps))


def groups(count: int, most: int = MOST_INPUTS) -> list[range]:
    """Clip numbers split into as few runs of nearly equal size as ``most`` allows."""
    parts = -(-count // most)
    edges = [round(part * count / parts) for part in range(parts + 1)]
    return [range(first, last) for first, last in pairwise(edges)]


def plan_sequence(clips: Sequence[Path], durations_s: Sequence[float], transition_s: float, canvas: Canvas) -> Plan:
    """Inputs and filters that fade ``clips`` (at most :data:`MOST_INPUTS`) into one another."""
    plan = Plan()
    labels = [_fitted(plan, clip, number, canvas) for number, clip in enumerate(clips)]
    current, length = labels[0], durations_s[0]
    lengths = fades(durations_s, transition_s, canvas.fps)
    for number, (label, fade_s) in enumerate(zip(labels[1:], lengths, strict=True), 1):
        if fade_s > 0:
            joint = f"xfade=transition=fade:duration={fade_s:.6f}:offset={length - fade_s:.6f}"
        else:
            joint = "concat=n=2:v=1:a=0"
        current = plan.chain(f"[{current}][{label}]", joint, f"joined{number}")
        length += durations_s[number] - fade_s
    hold = f"tpad=stop_mode=clone:stop_duration={canvas.duration_s:.3f},fps={canvas.fps}"
    plan.video = plan.chain(f"[{current}]", hold, "sequence")
    return plan


def _fitted(plan: Plan, clip: Path, number: int, canvas: Canvas) -> str:
    index = plan.add_input(media_input(clip))
    return plan.chain(f"[{index}:v]", f"{fitted(canvas)},settb=1/{canvas.fps}", f"clip{number}")


def fitted(canvas: Canvas) -> str:
    """Filters that show any picture whole, centred on dark bars, in the programme's size and rate."""
    size = f"{canvas.width}:{canvas.height}"
    dark = "0x{:02x}{:02x}{:02x}".format(*INK)
    return (
        f"scale={size}:force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bicubic"
        f":out_color_matrix=bt709:out_range=tv,pad={size}:(ow-iw)/2:(oh-ih)/2:color={dark},"
        f"setsar=1,fps={canvas.fps},format=yuv420p"
    )


def plan_video(source: Path, canvas: Canvas, *, with_sound: bool) -> Plan:
    """An existing video, fitted, with its own sound."""
    plan = Plan()
    number = plan.add_input(media_input(source))
    hold = f"tpad=stop_mode=clone:stop_duration={canvas.duration_s:.3f}"
    plan.video = plan.chain(f"[{number}:v:0]", f"{fitted(canvas)},{hold}", "source")
    plan.audio = _sound(plan, number) if with_sound else None
    return plan


def _sound(plan: Plan, number: int) -> str:
    """The source's sound, as long as its picture: silent where it starts late or ends early."""
    label = plan.chain(f"[{number}:a:0]", "aresample=async=1:first_pts=0,apad", "sound")
    return f"[{label}]"


def plan_recording(source: Path, ground: Path, canvas: Canvas) -> Plan:
    """A recording without picture: its waveform drawn live over a still background."""
    plan = Plan()
    current = plan.add_still(ground, canvas.fps, "ground")
    number = plan.add_input(media_input(source))
    wave_width, wave_height = canvas.width * 3 // 4 // 2 * 2, canvas.height // 3 // 2 * 2
    colour = "0x{:02x}{:02x}{:02x}".format(*AMBER)
    wave = (
        f"aformat=channel_layouts=mono,showwaves=size={wave_width}x{wave_height}:mode=cline:scale=sqrt:draw=full"
        f":rate={canvas.fps}:colors={colour},{TO_YUV},format=yuva420p"
    )
    label = plan.chain(f"[{number}:a:0]", wave, "wave")
    place = f"overlay={(canvas.width - wave_width) // 2}:{canvas.height // 4}:format=yuv420:eof_action=pass"
    plan.video = plan.chain(f"[{current}][{label}]", place, "recording")
    plan.audio = f"{number}:a:0"
    return plan
