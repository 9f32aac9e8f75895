"""A server with the answers of an MLflow tracking server, as version 3.17 was seen to give them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = "/api/2.0/mlflow/"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Tracking:
    """What the server knows.

    Attributes:
        versions: artifact addresses by (name, version).
        runs: artifact addresses by run.
        logged: artifact addresses by logged model.
        artifacts: bytes by path below the proxy.
        tokens: what was in the Authorization headers.
    """

    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    logged: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""

    def answer(self, path: str, query: dict[str, str]) -> dict[str, Any] | bytes | None:
        if path == API + "model-versions/get-download-uri":
            found = self.versions.get((query["name"], query["version"]))
            return None if found is None else {"artifact_uri": found}
        if path == API + "runs/get":
            found = self.runs.get(query["run_id"])
            return None if found is None else {"run": {"info": {"artifact_uri": found, "run_id": query["run_id"]}}}
        if path.startswith(API + "logged-models/"):
            found = self.logged.get(path.rpartition("/")[2])
            return None if found is None else {"model": {"info": {"artifact_uri": found}}}
        if path == PROXY:
            return self.listing(query["path"])
        return self.artifacts.get(path.removeprefix(PROXY + "/"))

    def listing(self, path: str) -> dict[str, Any]:
        below = [
            (name.removeprefix(path + "/"), data)
            for name, data in self.artifacts.items()
            if name.startswith(path + "/")
        ]
        files = [{"path": name, "is_dir": False, "file_size": len(data)} for name, data in below if "/" not in name]
        folders = sorted({name.partition("/")[0] for name, _ in below if "/" in name})
        listed = [*files, *({"path": name, "is_dir": True} for name in folders)]
        return {"files": listed} if listed else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tracking: Tracking

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written."""

    def do_GET(self) -> None:
        self.tracking.tokens.add(self.headers.get("Authorization"))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        answer = self.tracking.answer(unquote(parts.path), query)
        status = 404 if answer is None else 200
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}
        body = answer if isinstance(answer, bytes) else json.dumps(missing if answer is None else answer).encode()
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if begin:
            status = 206
        self.send_response(status)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        self.wfile.write(body[begin:])


@contextmanager
def running_tracking() -> Iterator[Tracking]:
    tracking = Tracking()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"tracking": tracking}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    tracking.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield tracking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
