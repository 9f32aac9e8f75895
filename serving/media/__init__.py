"""Captions, ffmpeg command lines, loudness and provenance: pure builders and one runner."""
