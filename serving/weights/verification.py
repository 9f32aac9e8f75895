"""Whether a snapshot is still what was fetched: every byte against its manifest, and by content; called by verify.

The one invariant: it changes nothing; one damaged file does not keep the others from being looked at.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from serving.errors import BadInput, foreign_text
from serving.weights.contents import check_file, missing_shards
from serving.weights.manifest import Entry, Manifest, digests


def damages(folder: Path, manifest: Manifest, allow_pickles: Sequence[str]) -> Iterator[str]:
    """One line for each thing that is wrong.

    Args:
        folder: of the files.
        manifest: what they should be.
        allow_pickles: names of files that may be pickles.
    """
    for entry in manifest.files:
        if (problem := _damage(folder, entry, allow_pickles, manifest.uri)) is not None:
            yield problem
    try:
        yield from map(str, missing_shards(folder, [entry.name for entry in manifest.files]))
    except (BadInput, OSError) as error:
        yield foreign_text(error)


def _damage(folder: Path, entry: Entry, allow_pickles: Sequence[str], uri: str) -> str | None:
    path = folder / entry.name
    try:
        if (size := path.stat().st_size) != entry.size_bytes:
            return f"{path}: has {size} bytes, not {entry.size_bytes}"
        check_file(path, entry.name, allow_pickles, uri)
        if (sha256 := digests(path, None, lambda: None)[0]) != entry.sha256:
            return f"{path}: has digest {sha256}, not {entry.sha256}"
    except FileNotFoundError:
        return f"{path}: is gone"
    except (BadInput, OSError) as error:
        return foreign_text(error)
    return None
