"""WeightsCache: the weights of models on this node; engines hold them, `reelmesh models pull|verify|gc` manage them.

The one invariant: what it gives out was checked against the source's digests and by content, and lies whole on the
disk; many processes share the folder, one fetches a model at a time.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from serving.errors import (
    BadInput,
    EngineFailed,
    MissingDependency,
    NotFound,
    ReelmeshError,
    TooLarge,
    foreign_text,
    shown,
)
from serving.repository.model import TENSOR_TASK, Model, Source
from serving.repository.source import RECORDS, Address, read_address
from serving.settings import Settings, WeightsSettings
from serving.weights import in_place, snapshots
from serving.weights.contents import check_folder
from serving.weights.download import FULL, Download, disk_full, here, listed
from serving.weights.folder import FolderRemote
from serving.weights.held import HeldWeights
from serving.weights.locks import fetching
from serving.weights.manifest import Manifest
from serving.weights.progress import Meter, Progress, Told, read_note, words
from serving.weights.remote import Listing, Remote, RemoteFile, checked
from serving.weights.remotes import path_of, remote_of
from serving.weights.selection import select
from serving.weights.verification import damages


class WeightsCache:
    """A folder of snapshots, bounded in bytes.

    Args:
        folder: made when it is needed.
        settings: bounds, and where the servers are.
    """

    def __init__(self, folder: Path, settings: WeightsSettings) -> None:
        self.folder = folder
        self._settings = settings

    @classmethod
    def of(cls, settings: Settings) -> "WeightsCache":
        """The cache that the settings name."""
        group = settings.weights
        return cls(group.folder or settings.home / "weights", group)

    def hold(self, model: Model, *, progress: Told | None = None) -> HeldWeights:
        """The model's weights, fetched if they are not here; they stay until they are closed. Blocks: call in a thread.

        What is cached of the card's revision is used without asking the source, so a branch moves by :meth:`pull`
        alone. A ``file:`` source is used where it lies unless card or settings want a copy.

        Args:
            model: any model whose source is a place; see :func:`has_weights`.
            progress: called a few times a second while something is fetched, here or by another process.

        Raises:
            BadInput: the source is a record, the files are damaged, or pickles that the card does not allow.
            NotFound: no such model, revision or folder.
            Forbidden: the source wants a token.
            MissingDependency: offline and not here, or a library is missing; names the command.
            TooLarge: larger than the whole cache.
            DeadlineExceeded: ``pull_s`` passed.
            Unavailable: the source does not answer, the disk is full, or another process fetches for too long.
        """
        with _named(model):
            address = _address(model)
            if self._used_in_place(model.card.source, address):
                return self._in_place(model, address, progress)
            return self._held(model) or self._fetch(model, address, progress, refresh=False)

    def pull(self, model: Model, *, progress: Told | None = None) -> HeldWeights:
        """As :meth:`hold`, but a branch, a tag or a bucket is asked again what it is now."""
        with _named(model):
            address = _address(model)
            if self._used_in_place(model.card.source, address):
                return self._in_place(model, address, progress)
            held = self._held(model)
            if held is not None and model.card.source.revision is not None and _is_fixed(model, held.manifest):
                return held
            if held is not None:
                held.close()
            return self._fetch(model, address, progress, refresh=True)

    def locate(self, model: Model) -> Path | None:
        """Where the weights lie now; None where they would have to be fetched. Nothing keeps them there."""
        address = read_address(model.card.source.uri)
        if address.kind in RECORDS:
            return None
        if self._used_in_place(model.card.source, address):
            path = path_of(model, address)
            return (path.parent if path.is_file() else path) if path.exists() else None
        found = snapshots.find(self._key_folder(model), model.card.source.revision)
        return None if found is None else found.files

    def verify(self, model: Model) -> list[str]:
        """What is wrong with the model's weights as they lie here, one line each; empty where nothing is.

        Reads every byte; of a folder that is used in place, against the digests taken when it was first used.

        Raises:
            MissingDependency: nothing is cached.
        """
        with _named(model):
            address = _address(model)
            if self._used_in_place(model.card.source, address):
                with self._in_place(model, address, None) as used:  # by the digests that were remembered
                    return list(damages(used.folder, used.manifest, model.card.source.allow_pickles))
            held = self._held(model)
            if held is None:
                fix = f"run `reelmesh models pull {model.name}`"
                raise MissingDependency(f"weights of {model.name} are not cached", fix=fix)
            with held:
                return list(damages(held.folder, held.manifest, model.card.source.allow_pickles))

    def discard(self, model: Model) -> bool:
        """Remove what is cached of the card's revision, so that it is fetched again; False where it is in use."""
        found = snapshots.find(self._key_folder(model), model.card.source.revision)
        return found is None or snapshots.remove(found)

    def collect(self, limit_bytes: int | None = None, *, dry_run: bool = False) -> list[snapshots.Removed]:
        """Remove what was used longest ago until the rest fits; see :func:`snapshots.collect`."""
        limit = self._settings.cache_bytes if limit_bytes is None else limit_bytes
        return snapshots.collect(self.folder, limit, dry_run=dry_run)

    def size_bytes(self) -> int:
        """Of all snapshots."""
        return snapshots.held_bytes(self.folder)

    def _used_in_place(self, source: Source, address: Address) -> bool:
        return address.kind == "file" and not (source.copied or self._settings.copy_folders)

    def _in_place(self, model: Model, address: Address, progress: Told | None) -> HeldWeights:
        source = model.card.source
        remote = FolderRemote(path_of(model, address), source.uri)
        files = _wanted(remote.listing(), source)
        note = self.folder / "in-place" / f"{self._key_folder(model).name}.json"
        meter = Meter(model.name, None, progress)
        manifest = in_place.manifest_of(remote.folder, files, source, note, meter, self._settings.parallel)
        _check_digest(source, manifest)
        return HeldWeights(remote.folder, manifest)

    def _key_folder(self, model: Model) -> Path:
        """One for each source and choice of files; relative addresses are told apart by the model's folder."""
        source = model.card.source
        kind, relative = source.uri.partition(":")[0], not source.uri.partition(":")[2].startswith("/")
        base = str(model.folder) if kind in {"file", "dvc"} and relative else ""
        told = json.dumps([base, source.uri, source.files, source.allow_pickles])
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", source.uri)[:60].strip("-.")
        return self.folder / f"{plain}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def _held(self, model: Model) -> HeldWeights | None:
        found = snapshots.find(self._key_folder(model), model.card.source.revision)
        lock = None if found is None else snapshots.take(found)
        if found is None or lock is None:
            return None
        try:
            _check_digest(model.card.source, found.manifest)
        except BadInput:
            os.close(lock)
            raise
        return HeldWeights(found.files, found.manifest, lock=lock)

    def _fetch(self, model: Model, address: Address, progress: Told | None, *, refresh: bool) -> HeldWeights:
        if self._settings.offline and address.kind != "file":
            fix = f"run `reelmesh models pull {model.name}` without weights.offline, or copy the cache of another node"
            raise MissingDependency(f"weights of {model.name} are not cached and weights.offline is set", fix=fix)
        key = self._key_folder(model)
        note = key / "progress.json"

        def waiting() -> str:
            told = read_note(note)
            if told is not None and progress is not None:
                progress(Progress(model.name, told.done_bytes, told.total_bytes, told.pid))
            return words(told)

        with fetching(key / "lock", self._settings.wait_s, waiting):
            if not refresh and (held := self._held(model)) is not None:  # another process was faster
                return held
            try:
                with closing(remote_of(model, address, self._settings)) as remote:
                    return self._from(remote, model, Meter(model.name, note, progress))
            finally:
                note.unlink(missing_ok=True)

    def _from(self, remote: Remote, model: Model, meter: Meter) -> HeldWeights:
        """With the lock held: list, check that it fits, fetch, check again, publish."""
        source, key, started_s = model.card.source, self._key_folder(model), time.monotonic()
        listing = listed(remote, self._settings)
        _check_revision(source, listing)
        files = _wanted(listing, source)
        name = _name(listing, files)
        for found in snapshots.snapshots_in(key):
            if found.path.name == name and (lock := snapshots.take(found)) is not None:
                return HeldWeights(found.files, snapshots.confirm(found, source.revision).manifest, lock=lock)
        partial = self._begun(key, name, files, source.uri)
        download = Download(
            remote,
            source.uri,
            partial / snapshots.FILES,
            self._settings,
            source.allow_pickles,
            meter,
            deadline_s=started_s + self._settings.pull_s,
        )
        try:
            manifest = _fetched(download, files, source, listing.revision, started_s)
            snapshot, lock = snapshots.publish(partial, manifest, key / "snapshots")
        except BadInput as error:  # the same would come again
            shutil.rmtree(partial, ignore_errors=True)
            if error.field is not None:  # the file's name at its source, since here it is gone
                error.field = error.field.replace(f"{download.folder}", source.uri)
            raise
        except OSError as error:
            if error.errno not in FULL:
                raise
            # What came is given back, since a full disk hurts everybody else on the node.
            shutil.rmtree(partial, ignore_errors=True)
            raise disk_full(self.folder, source.uri, sum(file.size_bytes for file in files)) from error
        return HeldWeights(snapshot.files, manifest, manifest.download_s, lock)

    def _begun(self, key: Path, name: str, files: tuple[RemoteFile, ...], uri: str) -> Path:
        """The folder of the fetch, with room for it on the disk and in the cache; other unfinished ones go."""
        for left in (key / "partial").glob("*"):
            if left.name != name:
                shutil.rmtree(left, ignore_errors=True)
        partial = key / "partial" / name
        total = sum(file.size_bytes for file in files)
        self._make_room(total, uri)
        needed = total - sum(here(partial / snapshots.FILES, file) for file in files)
        if shutil.disk_usage(key).free < needed:
            snapshots.collect(self.folder, max(0, self.size_bytes() - (needed - shutil.disk_usage(key).free)))
        if shutil.disk_usage(key).free < needed:
            raise disk_full(self.folder, uri, needed)
        (partial / snapshots.FILES).mkdir(parents=True, exist_ok=True)
        return partial

    def _make_room(self, size_bytes: int, uri: str) -> None:
        limit = self._settings.cache_bytes
        if size_bytes <= limit:
            snapshots.collect(self.folder, limit - size_bytes)
        if size_bytes > limit or (held := self.size_bytes()) > limit - size_bytes:
            used = "" if size_bytes > limit else f" and {held} bytes in it are in use"
            problem = f"{uri} has {size_bytes} bytes, the cache may hold {limit}{used}"
            raise TooLarge(problem, field="weights.cache_bytes", fix="raise it, or take fewer files (source.files)")


def has_weights(model: Model) -> bool:
    """Whether the model's source is a place that files come from; ``builtin:``, ``wheel:`` and ``export:`` are none.

    Nor is the folder of a Triton or tensor model, whose files are in its version folders.
    """
    address = read_address(model.card.source.uri)
    by_version = model.card.backend == "triton" or model.card.task == TENSOR_TASK
    own_folder = address.kind == "file" and path_of(model, address).resolve() == model.folder.resolve()
    return address.kind not in RECORDS and not (by_version and own_folder)


def _address(model: Model) -> Address:
    address = read_address(model.card.source.uri)
    if address.kind in RECORDS:
        problem = f"{model.card.source.uri} only says where the model comes from; nothing is fetched from it"
        raise BadInput(problem, field="source.uri", fix="name hf:, file:, s3:, mlflow: or dvc:")
    return address


def _wanted(listing: Listing, source: Source) -> tuple[RemoteFile, ...]:
    taken = select(listing.files, source.files, source.allow_pickles, source.uri)
    return checked(taken, source.uri)


def _fetched(
    download: Download, files: tuple[RemoteFile, ...], source: Source, revision: str | None, started_s: float
) -> Manifest:
    """Fetch, and check what came by its content and against the card."""
    entries = download.fetch(files)
    took_s = time.monotonic() - started_s
    check_folder(download.folder, [entry.name for entry in entries], source.allow_pickles, source.uri)
    manifest = Manifest(
        uri=source.uri,
        asked=(source.revision,),
        revision=revision,
        files=entries,
        fetched_at=time.time(),
        download_s=took_s,
    )
    _check_digest(source, manifest)
    return manifest


def _name(listing: Listing, files: tuple[RemoteFile, ...]) -> str:
    """Name of the snapshot: the same for the same files of the same revision."""
    told = [listing.revision, [(file.name, file.size_bytes, file.digest, file.version) for file in files]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _check_revision(source: Source, listing: Listing) -> None:
    """The hub resolves revisions; what others say must be what the card names, if it names one."""
    if source.uri.startswith("hf:") or None in {source.revision, listing.revision}:
        return
    if source.revision != listing.revision:
        problem = f"{source.uri} is at {shown(listing.revision)}, the card names {shown(source.revision)}"
        fix = "name what it is at, or none to take what is there"
        raise NotFound(problem, field="source.revision", fix=fix)


def _is_fixed(model: Model, manifest: Manifest) -> bool:
    """Whether the card names the very commit, which cannot become another one."""
    return model.card.source.revision == manifest.revision


def _check_digest(source: Source, manifest: Manifest) -> None:
    found = manifest.files[0].sha256 if len(manifest.files) == 1 else manifest.digest
    if source.sha256 is not None and source.sha256 != found:
        problem = f"{source.uri} has digest {found}, the card says {source.sha256}"
        raise BadInput(problem, field="source.sha256", fix="find out who changed the weights, then correct the card")


@contextmanager
def _named(model: Model) -> Iterator[None]:
    """Errors say which model's card they are about."""
    try:
        yield
    except ReelmeshError as error:
        if error.field is None:
            error.field = model.name
        elif error.field.startswith("source."):
            error.field = f"{model.name}/model.yaml:{error.field}"
        raise
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(Path(error.filename or "."), model.card.source.uri, 1) from error
        fix = "make weights.folder a folder that may be written, and the source one that may be read"
        raise EngineFailed(
            f"weights cannot be read or kept: {foreign_text(error)}", field=model.name, fix=fix
        ) from error
