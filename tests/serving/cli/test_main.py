import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from serving.cli import main as cli
from serving.cli.main import COMMANDS, run
from serving.cli.output import EXIT_CODES

HEAVY = ("ray", "torch", "numpy", "pydantic", "fastapi", "tritonclient", "dbos", "httpx", "cv2", "av")


def reelmesh(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_help_takes_less_than_half_a_second() -> None:
    """CPU time, which is the wall-clock time of a machine that does nothing else."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def seconds() -> float:
        before = spent()
        assert reelmesh("--help").returncode == 0
        return spent() - before

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from serving.cli.main import run; code = run(['--help']); "
        f"print(code, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "0 []"


def test_help_lists_every_command_and_every_exit_code(capsys) -> None:
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in [*COMMANDS, "k8s", "optimize"] if f" {name} " not in text] == []
    assert [code for code, meaning in EXIT_CODES.items() if f"{code.value} {meaning.split()[0]}" not in text] == []


@pytest.mark.parametrize("name", [*COMMANDS, "k8s", "optimize"])
def test_every_command_can_be_imported_and_helps(name: str, capsys) -> None:
    assert run([name, "--help"]) == 0
    assert f"Usage: reelmesh {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        pytest.param(["modles"], 2, "reelmesh: No such command 'modles'. Did you mean 'models'", id="typo"),
        pytest.param(["models", "show"], 2, "reelmesh: Missing argument 'model'", id="missing argument"),
        pytest.param(["models", "list", "--colour"], 2, "reelmesh: No such option: --colour", id="unknown option"),
        pytest.param(["models", "show", "nobody"], 2, "reelmesh: model: no model 'nobody'", id="unknown model"),
        pytest.param(
            ["models", "list", "-r", "/nowhere"], 2, "reelmesh: /nowhere: no such folder: run this", id="no folder"
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(arguments: list[str], code: int, line: str, capsys) -> None:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(line)


def test_an_error_is_json_where_json_was_asked_for(capsys) -> None:
    assert run(["models", "show", "nobody", "--json"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["code"], error["field"], error["problem"]) == ("not_found", "model", "no model 'nobody'")


def test_a_wrong_variable_is_named(monkeypatch, capsys) -> None:
    monkeypatch.setenv("REELMESH_EDGE__HTTP_PORT", "eighty")
    assert run(["models", "list"]) == 2
    assert capsys.readouterr().err.startswith("reelmesh: REELMESH_EDGE__HTTP_PORT: 'eighty': input should be")


def test_without_arguments_the_help_is_shown(capsys) -> None:
    assert run([]) == 2
    assert "Usage: reelmesh" in "".join(capsys.readouterr())


def test_a_missing_library_says_how_to_install_it(monkeypatch, capsys) -> None:
    monkeypatch.setitem(cli.COMMANDS, "up", cli._Lazy("serving.nothing_here:up", "."))
    assert run(["up"]) == 3
    assert capsys.readouterr().err == "reelmesh: `reelmesh up` needs serving.nothing_here: pip install reelmesh\n"


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("oops"), 1)])
def test_an_interrupt_and_a_bug_have_their_codes(monkeypatch, error: BaseException, code: int) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_imported", fail)
    assert run(["models", "list"]) == code


def test_a_closed_pipe_is_no_error(repository_root: Path) -> None:
    command = f"{sys.executable} -m serving.cli.main models list --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=repository_root
    )
    assert (done.stdout, done.stderr) == ("[", "")
