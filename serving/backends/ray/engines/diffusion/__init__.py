"""Engines of diffusers' pipelines: pictures, video and music, one file per family over a common base."""
