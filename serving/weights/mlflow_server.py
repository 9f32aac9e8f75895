"""MlflowRemote: a model version, or a path in a run, of an MLflow tracking server, by its REST API; made by remotes.

The one invariant: what the server says of a place is followed only to schemes that are known here, and only so many
steps far. (The API: https://mlflow.org/docs/latest/api_reference/rest-api.html; artifacts through the server's proxy.)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from serving.errors import BadInput, NotFound, Unsupported, foreign_text, shown
from serving.weights.folder import FolderRemote
from serving.weights.http_bytes import HttpFiles
from serving.weights.remote import MAX_FILES, Listing, Pieces, Remote, RemoteFile

_STEPS: Final = 4
"""From a version by ``runs:`` or ``models:`` to where the files are."""
_MAX_FOLDERS: Final = 1_000
_API: Final = "api/2.0/mlflow"
_PROXY: Final = "api/2.0/mlflow-artifacts/artifacts"


class MlflowRemote:
    """What a ``mlflow:`` address names.

    Args:
        place: ``models/NAME/VERSION`` or ``runs/RUN_ID/path``.
        url: of the tracking server; may carry user and password.
        token: bearer token; None for none.
        timeout_s: on connecting, and on silence.
        bucket: makes the remote of an ``s3://`` address, for servers that keep artifacts there and do not proxy.
    """

    def __init__(
        self, place: str, *, url: str, token: str | None, timeout_s: float, bucket: Callable[[str], Remote]
    ) -> None:
        self._place, self._url, self._bucket, self._timeout_s = place, url.rstrip("/"), bucket, timeout_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = HttpFiles("the MLflow server", headers, timeout_s)
        self._inner: Remote | None = None

    def listing(self) -> Listing:
        """Every file of the version or path; the revision is the place that the server names.

        Raises:
            NotFound: no such model, version, run or path.
            Unsupported: the server keeps it in a store that is not read here.
        """
        uri = self._artifact_uri()
        parts = urlsplit(uri)
        match parts.scheme:
            case "mlflow-artifacts":
                base, own = base_of(self._url, parts.netloc)
                if not own:
                    self._http.close()
                    self._http = HttpFiles("the MLflow artifact server", {}, self._timeout_s)
                files = list(self._listed(f"{base}/{_PROXY}", unquote(parts.path).strip("/")))
                if not files:
                    fix = "look at its artifacts in MLflow's page"
                    raise NotFound(f"mlflow:{self._place} has no files", field="source.uri", fix=fix)
                return Listing(uri, tuple(files))
            case "s3":
                self._inner = self._bucket(uri)
            case "file" | "":
                self._inner = FolderRemote(Path(unquote(parts.path)), f"mlflow:{self._place}")
            case _:
                fix = "start MLflow with --serve-artifacts, or keep its artifacts in S3"
                raise Unsupported(f"MLflow keeps it at {parts.scheme}:, which is not read", field="source.uri", fix=fix)
        return Listing(uri, self._inner.listing().files)

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Pieces]:
        """The bytes of a file, from the proxy or from where the server keeps them."""
        return self._http.open(file.place, offset) if self._inner is None else self._inner.open(file, offset)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _artifact_uri(self) -> str:
        """Where the files are, by the server's own words."""
        uri = re.sub(r"^(models|runs)/", r"\1:/", self._place)
        for _ in range(_STEPS):
            scheme, _, rest = uri.partition(":/")
            match scheme, rest.strip("/").split("/"):
                case "models", [model_id]:
                    answer = self._asked(f"logged-models/{quote(model_id)}", {})
                    uri = text_at(answer, "model", "info", "artifact_uri")
                case "models", [name, version]:
                    answer = self._asked("model-versions/get-download-uri", {"name": name, "version": version})
                    uri = text_at(answer, "artifact_uri")
                case "runs", [run, *path]:
                    answer = self._asked("runs/get", {"run_id": run})
                    uri = "/".join([text_at(answer, "run", "info", "artifact_uri").rstrip("/"), *path])
                case _:
                    return uri
        raise BadInput(f"mlflow:{self._place} leads from place to place", field="source.uri", fix="name its run")

    def _asked(self, method: str, params: Mapping[str, str]) -> dict[str, Any]:
        try:
            return self._http.json(f"{self._url}/{_API}/{method}", params)
        except NotFound as error:
            fix = "look at the models and runs in MLflow's page"
            raise NotFound(f"MLflow has no {self._place}", field="source.uri", fix=fix) from error

    def _listed(self, proxy: str, root: str) -> Iterator[RemoteFile]:
        """Files below a path of the proxy, or the one file of that path, which only its folder's listing shows."""
        waiting, count, folders = [""], 0, 0
        while waiting:
            below, folders = waiting.pop(), folders + 1
            for name, size in entries_of(self._http.json(proxy, {"path": f"{root}/{below}".strip("/")})):
                path = f"{below}/{name}".strip("/")
                if size is None:
                    waiting.append(path)
                    continue
                count += 1
                yield RemoteFile(path, size, f"{proxy}/{quote(root)}/{quote(path)}")
            if count > MAX_FILES or folders > _MAX_FOLDERS:
                fix = "name the path of one model in its run"
                raise BadInput(f"mlflow:{self._place} holds over {MAX_FILES} files", field="source.uri", fix=fix)
        if not count and "/" in root:
            above, _, last = root.rpartition("/")
            for name, size in entries_of(self._http.json(proxy, {"path": above})):
                if name == last and size is not None:
                    yield RemoteFile(name, size, f"{proxy}/{quote(root)}")


def base_of(url: str, netloc: str) -> tuple[str, bool]:
    """Where a proxy of artifacts is, and whether that is the server that was asked, to which alone token and user go.

    Args:
        url: of the tracking server.
        netloc: host and port that it names; empty for its own.

    Raises:
        BadInput: that is no host and port.
    """
    asked, named = urlsplit(url), urlsplit(f"//{netloc}")
    try:
        own = not netloc or (asked.hostname, asked.port) == (named.hostname, named.port)
    except ValueError as error:  # a port that is none
        raise _strange("names a place of artifacts that is none") from error
    if own:
        return url, True
    return f"{asked.scheme}://{netloc.rpartition('@')[2]}", False


def entries_of(answer: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Names and sizes in a listing of the proxy; None is the size of a folder.

    Raises:
        BadInput: the answer is no such listing.
    """
    files = answer.get("files", [])
    found: list[tuple[str, int | None]] = []
    entry: Any
    for entry in files if isinstance(files, list) else [None]:
        match entry:
            case {"path": str(path), "is_dir": True}:
                found.append((path, None))
            case {"path": str(path), "file_size": int(size)}:
                found.append((path, size))
            # JSON of protocol buffers writes 64-bit numbers as text; a size of 0 is left out.
            case {"path": str(path), "file_size": str(size)} if re.fullmatch(r"[0-9]{1,18}", size):
                found.append((path, int(size)))
            case {"path": str(path)} if "file_size" not in entry:
                found.append((path, 0))
            case _:
                raise _strange(f"lists {shown(entry)}")
    if any(not path or path.startswith("/") or ".." in path.split("/") for path, _ in found):
        raise _strange("lists a path that leads elsewhere")
    return found


def text_at(answer: Mapping[str, Any], *way: str) -> str:
    """The text at the end of a way through an answer; :class:`BadInput` where there is none."""
    value: Any = answer
    for step in way:
        value = value.get(step) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or not value:
        raise _strange(f"says no {'.'.join(way)}")
    return value


def _strange(what: str) -> BadInput:
    fix = "check that weights.mlflow_url is an MLflow tracking server of version 2 or 3"
    return BadInput(f"the MLflow server {foreign_text(what)}", field="weights.mlflow_url", fix=fix)
