"""The ``puppet`` engine: a portrait speaks and listens, from phonemes alone, without weights; see engine for the whole.

Read in this order: visemes (phoneme to mouth shape), mouth_track (shapes over time), motion (head, eyes), face (the
geometry of a portrait), warp, mouth, eyes (what moves where), puppet (one frame), engine (one clip).
"""

from serving.backends.ray.engines.lipsync.engine import LipSyncEngine

__all__ = ["LipSyncEngine"]
