"""A repository in DVC's own formats, byte for byte as DVC 3.67 was seen to write them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.serving.weights.models import write


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def listing(files: Mapping[str, bytes]) -> bytes:
    """A ``.dir`` object."""
    return json.dumps([{"md5": md5(data), "relpath": name} for name, data in sorted(files.items())]).encode()


def objects(*folders: Mapping[str, bytes]) -> dict[str, bytes]:
    """Contents of a remote that the folders were pushed to, by key."""
    found = {}
    for files in folders:
        told = listing(files)
        found[f"files/md5/{md5(told)[:2]}/{md5(told)[2:]}.dir"] = told
        found |= {f"files/md5/{md5(data)[:2]}/{md5(data)[2:]}": data for data in files.values()}
    return found


def repository(root: Path, remote: str, files: Mapping[str, bytes], single: bytes = b"{}") -> Path:
    """``models/writer`` by ``dvc add``; ``out`` and ``single.json`` of a stage; none of it checked out."""
    told = listing(files)
    size = sum(map(len, files.values()))
    out = f"- md5: {md5(told)}.dir\n  size: {size}\n  nfiles: {len(files)}\n  hash: md5\n  path: writer\n"
    lock = (
        "schema: '2.0'\nstages:\n  train:\n    cmd: make\n    outs:\n"
        f"    - path: out\n      hash: md5\n      md5: {md5(told)}.dir\n"
        f"      size: {size}\n      nfiles: {len(files)}\n"
        f"    - path: single.json\n      hash: md5\n      md5: {md5(single)}\n      size: {len(single)}\n"
    )
    config = f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {remote}\n"
    text = {".dvc/config": config, "models/writer.dvc": f"outs:\n{out}", "dvc.lock": lock}
    return write(root, {name: value.encode() for name, value in text.items()})
