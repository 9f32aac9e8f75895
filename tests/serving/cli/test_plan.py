import json
from pathlib import Path

import pytest

from serving.cli.main import run

MODELS = Path(__file__).parents[3] / "model_repository"


def planned(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    code = run(["plan", "-r", str(MODELS), *more])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_a_plan_is_a_table_json_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    code, out, _ = planned(capsys, "--fake-gpus", "8", "--fake-memory", "96", "--png", str(picture))
    assert code == 0
    assert "30 replicas on 8 cards" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, _ = planned(capsys, "--fake-gpus", "8", "--fake-memory", "96", "--replicas", "wav2lip=3", "--json")
    told = json.loads(out)
    assert (code, told["unplaced"]) == (0, [])
    assert sum(replica.startswith("wav2lip#") for replica in told["placed"]) == 3
    for card in told["cards"]:
        assert 0 <= card["free_mib"] <= card["memory_mib"] * 0.92


def test_what_does_not_fit_is_told_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = planned(capsys, "--fake-gpus", "4")
    assert code == 1
    assert "ltx2#0 does not fit: needs a card of 82,609 MiB" in out


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--replicas", "wav2lip"], 2, "--replicas: 'wav2lip' is no number of replicas: write MODEL=COUNT"),
        (["--replicas", "speech=2"], 2, "no model 'speech' leases a GPU"),
        (["--cards", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
    ],
)
def test_bad_arguments_are_refused(capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str) -> None:
    found = planned(capsys, "--fake-gpus", "1", *more) if "--cards" not in more else planned(capsys, *more)
    assert found[0] == code
    assert words in found[2]
