"""Pipelines: one file each, readable from top to bottom; app.py composes them with the mesh."""
