"""Records of cold starts: written whole, the newest stays, what cannot be read is none."""

from pathlib import Path

from serving.backends.cold_start import ColdStart, read_cold_start


def test_the_newest_record_is_read_back(tmp_path: Path) -> None:
    ColdStart(download_s=1, load_s=2).save(tmp_path / "folder", "sdxl")
    newest = ColdStart(download_s=0, load_s=2.5, weights_bytes=7).warmed(0.5)
    newest.save(tmp_path / "folder", "sdxl")
    assert read_cold_start(tmp_path / "folder", "sdxl") == newest
    assert newest.total_s == 3.0
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["sdxl.json"]


def test_what_cannot_be_read_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"load_s":')
    (tmp_path / "b.json").write_text('{"other": 1}')
    assert [read_cold_start(tmp_path, name) for name in ("a", "b", "c")] == [None, None, None]


def test_a_record_that_cannot_be_kept_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "cold_starts").write_text("a file where the folder should be")
    ColdStart(download_s=0, load_s=1).save(tmp_path / "cold_starts", "painter")
    assert read_cold_start(tmp_path / "cold_starts", "painter") is None
