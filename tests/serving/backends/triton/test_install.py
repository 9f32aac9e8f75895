import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from serving.backends.triton import install as module
from serving.backends.triton.install import DIGESTS, NUMPY, STUB, TRITON, find_tritonserver, install, main
from serving.errors import BadInput, MissingDependency
from serving.settings import Settings


def fake_wheel(folder: Path, name: str, members: dict[str, str]) -> None:
    project, _, version = name.partition("==")
    path = folder / f"{project.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small wheels of the real shape, pinned as if they were the real ones."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    stub = f"pytriton/tritonserver/python_backend_stubs/{module.PYTHON}/{STUB.name}"
    triton = {
        "pytriton/tritonserver/bin/tritonserver": "binary",
        "pytriton/tritonserver/backends/python/libtriton_python.so": "library",
        stub: "stub",
        "pytriton/decorators.py": "not wanted",
        "nvidia_pytriton.libs/libx.so": "library",
        "nvidia_pytriton-0.7.0.dist-info/licenses/LICENSE": "Apache",
    }
    fake_wheel(folder, TRITON, triton)
    fake_wheel(folder, NUMPY, {"numpy/__init__.py": "", "numpy/core/tests/test_x.py": ""})
    digests = {name: hashlib.sha256(module._find(name, folder).read_bytes()).hexdigest() for name in DIGESTS}
    monkeypatch.setattr(module, "DIGESTS", digests)
    return folder


def test_only_what_is_needed_is_unpacked(wheels: Path, tmp_path: Path) -> None:
    binary = install(tmp_path / "cache/triton", wheels)
    folder = tmp_path / "cache/triton"
    unpacked = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert binary.read_text() == "binary" and binary.stat().st_mode & 0o111
    assert (tmp_path / "cache/triton" / STUB).stat().st_mode & 0o111
    assert "nvidia_pytriton.libs/libx.so" in unpacked
    assert "packages/numpy/__init__.py" in unpacked
    assert not {path for path in unpacked if "tests" in path or "decorators" in path or "stubs" in path}


def test_an_install_that_is_there_is_left_alone(wheels: Path, tmp_path: Path) -> None:
    binary = install(tmp_path / "triton", wheels)
    before = binary.stat().st_mtime_ns
    assert install(tmp_path / "triton", tmp_path / "no such folder") == binary
    assert binary.stat().st_mtime_ns == before


def test_two_installers_at_once_unpack_once(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []
    original = module._unpack_triton
    monkeypatch.setattr(module, "_unpack_triton", lambda *args: (unpacked.append(1), original(*args)))
    threads = [threading.Thread(target=install, args=(tmp_path / "triton", wheels)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(unpacked) == 1


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(wheels: Path, tmp_path: Path) -> None:
    module._find(NUMPY, wheels).write_bytes(b"something else")
    with pytest.raises(BadInput, match="has SHA-256"):
        install(tmp_path / "triton", wheels)
    assert not (tmp_path / "triton").exists()
    assert not list(tmp_path.glob(".unpack-*"))


def test_a_wheel_that_is_missing_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--into", str(tmp_path / "triton"), "--wheels", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"--wheels: no wheel of {TRITON} in {tmp_path}: put it there\n"


def test_another_machine_is_told_to_bring_its_own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(MissingDependency, match=r"riscv64: set REELMESH_TRITONSERVER"):
        install(tmp_path / "triton")


def test_nothing_installed_names_the_command_that_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    monkeypatch.setattr(module, "SYSTEM_TRITON", tmp_path / "none")
    with pytest.raises(MissingDependency, match=r"-m serving\.backends\.triton\.install"):
        find_tritonserver(Settings())


def test_a_setting_that_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="is not a program"):
        find_tritonserver(Settings(tritonserver=tmp_path))


def test_a_server_with_its_own_onnxruntime_needs_no_stub(tmp_path: Path) -> None:
    binary = tmp_path / "bin/tritonserver"
    (tmp_path / "backends/onnxruntime").mkdir(parents=True)
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    found = find_tritonserver(Settings(tritonserver=binary))
    assert found.binary == binary and found.stub is None and found.has_backend("onnxruntime")


def test_a_server_without_any_fitting_backend_is_refused(tmp_path: Path) -> None:
    binary = tmp_path / "triton/root/bin/tritonserver"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    with pytest.raises(MissingDependency, match="no onnxruntime backend"):
        find_tritonserver(Settings(tritonserver=binary))
