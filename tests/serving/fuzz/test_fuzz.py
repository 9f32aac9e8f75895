"""Every decoder under the coverage-guided fuzzer, some seconds each, in processes of their own; found cases stay.

By hand, for longer: `python -m tests.serving.fuzz TARGET --seconds 600`. What it finds goes into corpus/TARGET/, named
by what was wrong, and is replayed here ever after.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.fuzz.planted import PLANTED
from tests.serving.fuzz.targets import TARGETS, sound

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SECONDS = 3
AMPLIFIED_BYTES = 1 << 16
LINEAR_S = 3.0
"""Of CPU for :data:`AMPLIFIED_BYTES`: a quadratic decoder would need minutes."""
CASES = [(path.parent.name, path) for path in sorted((HERE / "corpus").glob("*/*"))]


def fuzz(found: Path, seconds: int, *targets: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.serving.fuzz", *targets, f"--seconds={seconds}", f"--found={found}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)


@pytest.mark.timeout(300)
def test_no_bytes_make_a_decoder_raise_anything_but_its_own_errors(tmp_path: Path) -> None:
    done = fuzz(tmp_path, SECONDS)
    assert done.returncode == 0, f"an input for corpus/ is in {tmp_path}:\n{done.stdout}{done.stderr[-2000:]}"
    assert [line.partition(":")[0] for line in sorted(done.stdout.splitlines())] == sorted(TARGETS)


@pytest.mark.timeout(300)
def test_the_fuzzer_finds_mistakes_that_were_planted(tmp_path: Path) -> None:
    done = fuzz(tmp_path, 20, *PLANTED)
    assert done.returncode == 1, done.stderr[-2000:]
    for target in PLANTED:
        assert f"{target}: broken" in done.stdout
        assert list(tmp_path.glob(f"{target}-*")), f"the input that breaks it is kept:\n{done.stdout}"


@pytest.mark.parametrize(("target", "case"), CASES, ids=[f"{name}-{path.name}" for name, path in CASES])
def test_what_was_found_once_stays_mended(target: str, case: Path) -> None:
    sound(TARGETS[target].run, case.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_lead_somewhere_and_are_decoded(target: str) -> None:
    for seed in TARGETS[target].seeds:
        sound(TARGETS[target].run, seed)


@pytest.mark.parametrize("target", TARGETS)
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_seeds_cut_joined_and_stuffed_are_decoded_or_refused(target: str, data: st.DataObject) -> None:
    known = TARGETS[target]
    pieces = st.one_of(
        st.sampled_from(list(known.seeds)),
        st.sampled_from([word.encode() for word in known.words] or [b""]),
        st.binary(max_size=20),
    )
    joined = b"".join(data.draw(st.lists(pieces, max_size=6)))
    start = data.draw(st.integers(0, max(len(joined) - 1, 0)))
    sound(known.run, joined[start:] if data.draw(st.booleans()) else joined[: len(joined) - start])


@pytest.mark.parametrize("target", TARGETS)
def test_time_is_linear_in_the_length_whatever_is_repeated(target: str) -> None:
    known = TARGETS[target]
    for piece in (*known.seeds, *(word.encode() for word in known.words), b"[", b"{", b'"', b"\x80", b"a: ", b"\\"):
        for head in (b"", known.seeds[0]):
            started = time.process_time()
            sound(known.run, (head + piece * (AMPLIFIED_BYTES // max(len(piece), 1)))[:AMPLIFIED_BYTES])
            assert time.process_time() - started < LINEAR_S, piece
