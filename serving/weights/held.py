"""HeldWeights: weights that lie on this machine and stay until they are closed; given to engines by the cache.

The one invariant: between hold and close no file in the folder is removed or changed by the mesh.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from serving.weights.manifest import Manifest


@dataclass
class HeldWeights:
    """Weights in use.

    Args:
        folder: where the files are.
        manifest: which files, with sizes and digests.
        download_s: how long fetching took now; 0 where they were here already.
        lock: descriptor that keeps them; None for a folder that is used in place.
    """

    folder: Path
    manifest: Manifest
    download_s: float = 0.0
    lock: int | None = field(default=None, repr=False)

    @property
    def revision(self) -> str | None:
        """What the card's revision was resolved to: a commit of the hub, a digest of a bucket's listing."""
        return self.manifest.revision

    @property
    def files(self) -> list[Path]:
        """The files that the card wants; a folder that is used in place may hold others."""
        return [self.folder / entry.name for entry in self.manifest.files]

    @property
    def digest(self) -> str:
        """SHA-256 over names and digests of the files."""
        return self.manifest.digest

    def close(self) -> None:
        """Let the cache remove them when it needs the room; may be called twice."""
        lock, self.lock = self.lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> "HeldWeights":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
