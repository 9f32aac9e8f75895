"""`python -m tests.serving.fuzz TARGET --seconds 60`: looks for bytes that break a decoder, guided by coverage."""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

INSTRUMENTED = ["serving", "tests.serving.fuzz.planted", "google.protobuf.text_format", "google.protobuf.json_format"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.serving.fuzz.planted import PLANTED
    from tests.serving.fuzz.targets import TARGETS, sound

CORPUS = Path(__file__).parent / "corpus"
MAX_BYTES = 4096
UNIT_S = 3
"""Longest that one input may take."""


def main() -> None:
    """Run one target for a while; ends with a status other than 0, and the input's place, when one breaks it."""
    known = TARGETS | PLANTED
    parser = argparse.ArgumentParser(prog="python -m tests.serving.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(known))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--found", type=Path, default=Path.cwd(), help="folder for an input that breaks the decoder")
    parser.add_argument("--seed", type=int, default=0, help="0 draws one")
    options = parser.parse_args()
    target = known[options.target]
    with tempfile.TemporaryDirectory(prefix="reelmesh-fuzz-") as folder:
        seeds, words = Path(folder) / "seeds", Path(folder) / "words"
        seeds.mkdir()
        for number, seed in enumerate(target.seeds):
            (seeds / str(number)).write_bytes(seed)
        words.write_text("".join(f"{_quoted(word)}\n" for word in target.words))
        cases = CORPUS / options.target
        arguments = [
            sys.argv[0], f"-max_total_time={options.seconds}", f"-max_len={MAX_BYTES}", f"-timeout={UNIT_S}",
            f"-artifact_prefix={options.found}/{options.target}-", f"-seed={options.seed}", "-rss_limit_mb=1024",
            "-len_control=20", *([f"-dict={words}"] if target.words else []), str(seeds),
            *([str(cases)] if cases.is_dir() else []),
        ]  # fmt: skip

        def one(data: bytes) -> None:
            sound(target.run, data)

        atheris.Setup(arguments, one)
        atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'


if __name__ == "__main__":
    main()
