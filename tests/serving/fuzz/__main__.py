"""`python -m tests.serving.fuzz TARGET ... --seconds 60`: looks for bytes that break decoders, guided by coverage."""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

INSTRUMENTED = ["serving", "tests.serving.fuzz.planted", "google.protobuf.text_format", "google.protobuf.json_format"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.serving.fuzz.planted import PLANTED
    from tests.serving.fuzz.targets import TARGETS, sound

KNOWN = TARGETS | PLANTED
CORPUS = Path(__file__).parent / "corpus"
MAX_BYTES = 4096
UNIT_S = 3
"""Longest that one input may take."""
AT_A_TIME = 2
SHOWN = 4000


def main() -> int:
    """Run targets for a while each; 1, and the input's place, when one breaks its decoder."""
    parser = argparse.ArgumentParser(prog="python -m tests.serving.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(KNOWN)}; none means all decoders")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--found", type=Path, default=Path.cwd(), help="folder for logs and inputs")
    options = parser.parse_args()
    waiting, running, broken = list(options.targets or TARGETS), {}, 0
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            name = waiting.pop(0)
            running[start(name, options.seconds, options.found)] = name
        process, status = os.wait()
        name, log = running[process], options.found / f"{running.pop(process)}.log"
        said = log.read_text(errors="replace")
        if status or "Done " not in said:
            broken += 1
            print(f"{name}: broken (status {status}):\n{said[-SHOWN:]}", flush=True)
        else:
            print(f"{name}: {said[said.index('Done ') :].strip()}", flush=True)
    return 1 if broken else 0


def start(name: str, seconds: int, found: Path) -> int:
    """A child that fuzzes; forked, since instrumenting the code takes seconds. Its process id."""
    child = os.fork()
    if child == 0:
        with (found / f"{name}.log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        fuzz(name, seconds, found)
        os._exit(2)
    return child


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Run one target; ends the process, with a status other than 0 when an input broke the decoder."""
    target = KNOWN[name]
    folder = Path(tempfile.mkdtemp(prefix="seeds-", dir=found))
    for number, seed in enumerate(target.seeds):
        (folder / str(number)).write_bytes(seed)
    words = found / f"{name}.words"
    words.write_text("".join(f"{_quoted(word)}\n" for word in target.words))
    cases = CORPUS / name
    arguments = [
        sys.argv[0], f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={UNIT_S}",
        f"-artifact_prefix={found}/{name}-", "-rss_limit_mb=1024", "-len_control=20",
        *([f"-dict={words}"] if target.words else []), str(folder), *([str(cases)] if cases.is_dir() else []),
    ]  # fmt: skip

    def one(data: bytes) -> None:
        try:
            sound(target.run, data)
        except BaseException:
            # Python's end gives SIGALRM its default back, and libFuzzer's timer then kills a process that is slow to
            # end before libFuzzer has kept the input.
            (found / f"{name}-crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    atheris.Setup(arguments, one)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


if __name__ == "__main__":
    sys.exit(main())
