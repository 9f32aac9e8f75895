"""A small hub over HTTP that speaks the API huggingface_hub uses, with ranges, cut connections and refusals."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "1" * 40
LARGE = 64
"""Files of this many bytes are kept in LFS, where the hub knows their SHA-256; of others it knows git's own digest."""


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        repositories: files by commit by name.
        refs: commits by (name, branch or tag).
        cuts: bytes after which an answer is cut off, one for each answer, by file.
        damaged: files whose first answer has a wrong byte.
        refused: status and error code by name of a repository.
        asked: (path, Range, Authorization) of every request for bytes.
        listed: how many listings were asked for.
        cdn: host that files are redirected to, as the hub does.
        held: set to let answers go on that wait in the middle.
    """

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    listed: int = 0
    cdn: str | None = None
    ranges: bool = True
    waits_after: int | None = None
    waiting: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def put(self, name: str, files: Mapping[str, bytes], commit: str = COMMIT, ref: str = "main") -> None:
        self.repositories.setdefault(name, {})[commit] = dict(files)
        self.refs[name, ref] = commit


def sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    told: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if len(data) >= LARGE:
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if listing := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._list(listing[1], listing[2])
        elif file := re.fullmatch(r"/(?:cdn/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(file[1], file[2], file[3], path)
        else:
            self._refuse(404, "EntryNotFound")

    def _list(self, name: str, revision: str) -> None:
        self.hub.listed += 1
        if name in self.hub.refused:
            self._refuse(*self.hub.refused[name])
        elif name not in self.hub.repositories:
            self._refuse(401, "RepoNotFound")
        elif (commit := self.hub.refs.get((name, revision), revision)) not in self.hub.repositories[name]:
            self._refuse(404, "RevisionNotFound")
        else:
            files = [sibling(*item) for item in self.hub.repositories[name][commit].items()]
            body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": files}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _file(self, name: str, commit: str, file: str, path: str) -> None:
        asked = self.headers.get("Range")
        self.hub.asked.append((path, asked, self.headers.get("Authorization")))
        if self.hub.cdn is not None and not path.startswith("/cdn/"):
            self.send_response(302)
            self.send_header("Location", f"{self.hub.cdn}/cdn{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.hub.repositories[name][commit][file]
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.hub.ranges else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self._send(file, data[begin:])

    def _send(self, file: str, data: bytes) -> None:
        if file in self.hub.damaged:
            self.hub.damaged.discard(file)
            data = data[:-1] + bytes([data[-1] ^ 1])
        cuts = self.hub.cuts.get(file)
        if cuts:
            self.wfile.write(data[: cuts.pop(0)])
            self.close_connection = True
            return
        if self.hub.waits_after is not None and len(data) > self.hub.waits_after:
            self.wfile.write(data[: self.hub.waits_after])
            self.wfile.flush()
            self.hub.waiting.set()
            self.hub.held.wait(20)
            data = data[self.hub.waits_after :]
        try:
            self.wfile.write(data)
        except OSError:  # whoever asked is gone
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.held.set()
        server.shutdown()
        thread.join()
        server.server_close()
