"""The rules of the house that no linter holds: sizes, docstrings, reading the environment, declaring metrics."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("serving", "graphs", "optimize", "k8s", "loadtests", "bench")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

FOREIGN_VARIABLES = {"XDG_CACHE_HOME", "PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "TERM", "NO_COLOR"}
"""Variables that others define and that settings therefore need not carry."""


DECLARED_NOWHERE = {
    "triton_python_backend_utils": "Triton's own, inside its process",
    "tensorflow": "conversion in a throw-away venv",
    "tf2onnx": "the same",
    "bullmq": "scripts/bootstrap installs it without its dependencies, which do not go with DBOS",
}
"""Modules that are imported where they are and declared nowhere, and why."""

USED_WITHOUT_IMPORT = {
    "uvloop": "uvicorn takes it",
    "httptools": "uvicorn takes it",
    "python-multipart": "FastAPI takes it",
    "protobuf": "google.protobuf",
}
"""Dependencies that other libraries load, or whose module has another name."""


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def modules() -> list[Path]:
    """Every module of ours that has a body."""
    return [path for path in files(*PACKAGES) if path.read_text(encoding="utf-8").strip()]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files(*PACKAGES, "tests")}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    long = {
        f"{named(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in files(*PACKAGES, "tests")
        for node in functions(parsed(path))
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_opens_with_what_it_is_and_its_invariant(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path)) or ""
    assert docstring, "a module opens with one sentence: what it is and who calls it"
    sentence = docstring.partition("\n\n")[0]
    assert sentence.rstrip().endswith((".", ":")), f"the first paragraph is a sentence: {sentence!r}"
    if path.name != "__init__.py":
        assert "invariant" in docstring, "then the one invariant worth knowing"


@pytest.mark.parametrize("path", modules(), ids=named)
def test_only_settings_read_the_environment(path: Path) -> None:
    assert list(environment_reads(parsed(path))) == [], "put it into serving/settings.py and pass it on"


def environment_reads(tree: ast.AST) -> Iterator[str]:
    """Variables read by name; passing the whole environment to a child, and setting variables for it, is no read."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get"), args=[key, *_]):
                yield from foreign(key)
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[key, *_]):
                yield from foreign(key)
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=key, ctx=ast.Load()):
                yield from foreign(key)


def foreign(key: ast.expr) -> Iterator[str]:
    name = key.value if isinstance(key, ast.Constant) else ast.unparse(key)
    if name not in FOREIGN_VARIABLES:
        yield str(name)


def test_metrics_are_declared_in_telemetry_alone() -> None:
    declaring = {
        named(path)
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom)
        and node.module == "prometheus_client"
        and {"Counter", "Gauge", "Histogram", "Summary"} & {name.name for name in node.names}
    }
    assert declaring == {"serving/telemetry.py"}


def test_every_metric_carries_the_prefix() -> None:
    from serving import telemetry

    names = [family.name for family in telemetry.METRICS.collect()]
    assert names
    assert [name for name in names if not name.startswith("reelmesh_")] == []


def test_no_mark_says_that_something_is_unfinished() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
    found = [
        f"{named(path)}: {mark}"
        for path in files(*PACKAGES, "tests")
        for mark in marks
        if mark in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_the_model_repository_passes_its_own_lint() -> None:
    from serving.repository.lint import lint

    findings = lint([ROOT / "model_repository"])
    assert [finding.render(ROOT) for finding in findings if finding.severity == "error"] == []


def test_what_is_imported_is_declared() -> None:
    """Nothing rests on a package that only another package happens to bring."""
    of_module = importlib.metadata.packages_distributions()
    undeclared = {
        f"{module} ({sorted(places)[0]})"
        for module, places in imported(*PACKAGES).items()
        if module not in DECLARED_NOWHERE
        and not {canonical(name) for name in of_module.get(module, [module])} & {*declared(), "pydantic-core"}
    }
    assert undeclared == set()


def test_what_is_declared_is_used() -> None:
    """The demo downloads nothing that no line of ours needs."""
    of_module = importlib.metadata.packages_distributions()
    used = {canonical(name) for module in imported(*PACKAGES) for name in of_module.get(module, [module])}
    core = {canonical(re.split(r"[\[<>=]", line)[0]) for line in project()["dependencies"]}
    assert core - used - set(USED_WITHOUT_IMPORT) == set()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared() -> set[str]:
    lines = [
        *project()["dependencies"],
        *(line for extra in project()["optional-dependencies"].values() for line in extra),
    ]
    return {canonical(re.split(r"[\[<>=]", line)[0]) for line in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*folders: str) -> dict[str, set[str]]:
    """Top-level modules of others, and the files that import them."""
    found: dict[str, set[str]] = {}
    for path in files(*folders):
        for node in ast.walk(parsed(path)):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - set(PACKAGES):
                found.setdefault(module, set()).add(named(path))
    return found
