"""Parts of models of faces: Wav2Lip, the First Order Motion Model, SadTalker's motion, and a detector of fakes.

The one invariant: every frame or face is a row of its own, so that rows vary in every part but the source's encoder.
"""

import math
from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import FaceAnimationRequest, FaceMotionRequest, LipSyncRequest, ManipulationRequest

WAV2LIP_PARTS = {
    "generator": Part(at="network", axes={"mel": "batch _ _ _", "face": "batch _ _ _"}, int8="static"),
}

FIRST_ORDER_PARTS = {
    "keypoint_detector": Part(at="detector", axes={"picture": "batch _ height width"}, fixes=("linspace",)),
    "encoder": Part(at="encoder", axes={"picture": "_ _ height width"}),
    "generator": Part(
        at="generator",
        axes={
            "picture": "_ _ height width",
            "features": "_ _ rows columns",
            "driving.places": "batch _ _",
            "driving.jacobians": "batch _ _ _",
        },
        fixes=("linspace", "repeat_interleave"),
    ),
}

SADTALKER_PARTS = {
    "audio2exp": Part(at="expression", axes={"mel": "batch _ _ _", "blink": "batch"}),
    "audio2pose": Part(at="pose", axes={"mel": "batch _ _ _", "latent": "batch _"}, adapter="style_told"),
}

XCEPTION_PARTS = {
    "network": Part(at="network", axes={"faces": "batch _ _ _"}, int8="static"),
}

FRAMES = (4, 2, 3, 1)
"""Of sample clips; no two alike, one of them a single frame."""


async def lip_sync(samples: Samples) -> Sequence[LipSyncRequest]:
    """Clips of few frames."""
    portrait = await samples.face(240, 240)
    points = [(120 + x, 120 + y) for x, y in spiral(468, 60)]
    return [
        LipSyncRequest(
            portrait=portrait, points=points, audio=await samples.sound(1.0, seed), duration_s=frames / 25, width=160,
            height=180,
        )
        for seed, frames in enumerate(FRAMES)
    ]  # fmt: skip


async def animation(samples: Samples) -> Sequence[FaceAnimationRequest]:
    """Clips of few frames: upright, wide, square."""
    sizes = ((128, 256), (256, 128), (128, 128))
    return [
        FaceAnimationRequest(
            source=await samples.face(width, height, seed), driving=await samples.clip(frames, width, height, seed + 1),
            width=width, height=height,
        )
        for seed, ((width, height), frames) in enumerate(zip(sizes, FRAMES, strict=False))
    ]  # fmt: skip


async def motion(samples: Samples) -> Sequence[FaceMotionRequest]:
    """Sounds of a few frames up to several pieces, of several styles."""
    return [
        FaceMotionRequest(audio=await samples.sound(seconds, seed), pose_style=style, seed=seed)
        for seed, (seconds, style) in enumerate([(1.1, 20), (0.6, 0), (0.3, 45), (2.0, 7)])
    ]


async def media_with_faces(samples: Samples) -> Sequence[ManipulationRequest]:
    """Clips of which several frames are looked at."""
    clips = [await samples.clip(3 * frames, 240, 240, seed) for seed, frames in enumerate(FRAMES)]
    looks = [ManipulationRequest(media=clip, frames=frames) for clip, frames in zip(clips, FRAMES, strict=True)]
    return looks


def spiral(count: int, radius: float) -> list[tuple[float, float]]:
    """Places spread evenly over a circle round 0, in the units of its radius; a face's points, as far as boxes go."""
    turn = math.pi * (3 - math.sqrt(5))
    return [
        (math.sqrt(i / count) * radius * math.cos(i * turn), math.sqrt(i / count) * radius * math.sin(i * turn))
        for i in range(count)
    ]


WAV2LIP = Family(WAV2LIP_PARTS, lip_sync)
FIRST_ORDER = Family(FIRST_ORDER_PARTS, animation)
SADTALKER = Family(SADTALKER_PARTS, motion)
XCEPTION = Family(XCEPTION_PARTS, media_with_faces)
