"""Stored bytes, addressed by their content."""
