"""The reelmesh command."""
