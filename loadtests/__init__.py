"""Load tests: black box over the wire."""
