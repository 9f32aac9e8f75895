"""What lint says of where weights come from."""

from pathlib import Path

import pytest

from serving.repository.lint import lint

CARD = """\
description: a writer
task: tensor
backend: ray
engine: onnxruntime
license: {{name: MIT, commercial_use: true}}
source: {source}
"""
CONFIG = """\
name: "writer"
backend: "ray"
input [{name: "X", data_type: TYPE_FP32, dims: [1]}]
output [{name: "Y", data_type: TYPE_FP32, dims: [1]}]
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("{uri: 'hf:a/b', files: ['*.json'], allow_pickles: [a.pth]}", None, id="the hub"),
        pytest.param("{uri: 'file:.', copied: true}", None, id="a folder"),
        pytest.param("{uri: 'hf:b'}", "error: source.uri: write hf:owner/name", id="no owner"),
        pytest.param("{uri: 'ftp://b'}", "error: source.uri: begin it with builtin:", id="no such scheme"),
        pytest.param("{uri: 'hf:a/b', copied: true}", "warning: source.copied: remove it", id="copied"),
        pytest.param(
            "{uri: 'hf:a/b'}\nadapters: {x: {source: {uri: b}}}",
            "error: adapters.x.source.uri: begin it with builtin:",
            id="of an adapter",
        ),
        pytest.param(
            "{uri: 'hf:a/b'}\nparts: {x: {source: {uri: 's3:b'}}}",
            "error: parts.x.source.uri: write s3://bucket/prefix",
            id="of a part",
        ),
        pytest.param("{uri: 'builtin:x', files: [a]}", "warning: source.files: remove it", id="files of a record"),
    ],
)
def test_an_address_is_checked_before_anything_starts(tmp_path: Path, source: str, expected: str | None) -> None:
    folder = tmp_path / "writer"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"x")
    (folder / "model.yaml").write_text(CARD.format(source=source))
    (folder / "config.pbtxt").write_text(CONFIG)
    findings = [finding for finding in lint([tmp_path]) if "source" in finding.field]
    told = [f"{finding.severity}: {finding.field}: {finding.fix}" for finding in findings]
    assert [line.startswith(expected or "") for line in told] == ([] if expected is None else [True])
