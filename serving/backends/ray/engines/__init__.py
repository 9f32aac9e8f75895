"""One file per engine family."""
