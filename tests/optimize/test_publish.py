from pathlib import Path

import pytest

from optimize import publish as module
from optimize.publish import is_whole, publish, published, versions
from optimize.report import ParityRow, Report, TimingRow
from serving.errors import Conflict, EngineFailed


def report(version: int) -> Report:
    return Report(
        model="film", version=version, fingerprint="f", onnx_sha256="a", onnx_bytes=4, opset=20,
        relative_tolerance=1e-4, tools={}, parity=[ParityRow(case="c", output="o", shape=[1], relative=0.0)],
        timing=[TimingRow(case="c", rounds=3, ms={"torch": 2.0, "fp32": 1.0})], threads=2, machine="m",
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "made/model.onnx"
    made.parent.mkdir()
    made.write_bytes(b"onnx")
    return made


def test_a_version_appears_with_its_files_its_report_and_the_texts_beside_it(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "film"
    (folder / ".publishing-1").mkdir(parents=True)  # left by a process that was killed
    made = publish(folder, [file], report(1), {"config.pbtxt": "x"})
    assert made == folder / "1"
    assert sorted(path.name for path in made.iterdir()) == ["model.onnx", "report.json", "report.md"]
    assert (folder / "config.pbtxt").read_text() == "x"
    assert (made.stat().st_mode & 0o777) == 0o755
    publish(folder, [file], report(2), {})
    assert sorted(versions(folder)) == [1, 2]
    assert [version.name for version, _ in published(folder)] == ["2", "1"]
    assert not is_whole(made, report(1))  # a part has a part.json
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [".publishing-1"]


def test_a_version_that_appeared_meanwhile_stays_and_so_do_the_texts(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "film"
    publish(folder, [file], report(1), {"config.pbtxt": "theirs"})
    file.write_bytes(b"other")
    with pytest.raises(Conflict, match="version 1 appeared meanwhile: run it again"):
        publish(folder, [file], report(1), {"config.pbtxt": "ours"})
    assert (folder / "1/model.onnx").read_bytes() == b"onnx"
    assert (folder / "config.pbtxt").read_text() == "theirs"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfile", full)
    with pytest.raises(EngineFailed, match="film: cannot publish: No space left on device"):
        publish(tmp_path / "film", [file], report(1), {"config.pbtxt": "x"})
    assert list((tmp_path / "film").iterdir()) == []
