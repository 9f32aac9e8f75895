"""`reelmesh keys`: make, list and remove the bearer keys of a key file; a thin layer over serving.edge.key_file.

The one invariant: a key is printed once, by the command that makes it, and stored nowhere.
"""

import hashlib
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.output import print_json, stdout
from serving.errors import BadInput
from serving.protocol.keys import CALLS, EVERY_MODEL, Calls, Grant
from serving.protocol.licences import COMMERCIAL, USES, Use
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.edge.key_file import Key

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make, list and remove the keys clients bring.")

KEY_BYTES = 32
PREFIX = "rmk_"
"""Lets people and scanners know a key when they see one."""
DEFAULT_FILE = Path("keys.yaml")

File = Annotated[
    Path | None, typer.Option(help="The key file. [default: REELMESH_EDGE__KEYS_FILE, else keys.yaml here]")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; logs and the gateway know it by this.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def new(
    name: Name,
    *,
    models: Annotated[
        list[str] | None,
        typer.Option(help="Model it may use, or a beginning that ends in *; may be repeated. [default: every model]"),
    ] = None,
    calls: Annotated[str, typer.Option(help=f"What it may do: {', '.join(CALLS)}.")] = "infer",
    use: Annotated[str, typer.Option(help=f"What its owner works for: {', '.join(USES)}.")] = COMMERCIAL,
    rate: Annotated[int | None, typer.Option(min=1, help="Requests per second. [default: no bound]")] = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, print it once, and add its hash to the key file."""
    from serving.edge.key_file import Key, add_key, parse_keys

    where = _file(file)
    secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    named = tuple(part for text in models or [EVERY_MODEL] for part in text.split(","))
    key = Key(hashlib.sha256(secret.encode()).hexdigest(), Grant(name, _calls(calls), named, _use(use)), rate)
    try:
        parse_keys(key.text(), where)
    except BadInput as error:
        field = (error.field or "").rpartition(".")[2]
        raise BadInput(error.problem, field=field.upper() if field == "name" else f"--{field}", fix=error.fix) from None
    add_key(where, key)
    if as_json:
        print_json({**_row(key), "key": secret, "file": str(where)})
        return
    print(secret)
    print(f"added {name!r} to {where}; the key is not shown again", file=sys.stderr)


@app.command("list")
def list_keys(file: File = None, as_json: AsJson = False) -> None:
    """List the keys by name, with what each may do."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from serving.edge.key_file import read_keys

    keys = read_keys(_file(file))
    if as_json:
        print_json([_row(key) for key in keys])
        return
    table = Table("key", "calls", "models", "requests/s", "use", box=SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        grant, rate = key.grant, str(key.rate or "-")
        table.add_row(f"[bold]{grant.name}[/]", grant.calls, ", ".join(grant.models), rate, grant.use)
    stdout().print(table)


@app.command()
def remove(name: Name, file: File = None) -> None:
    """Take a key out of the key file; a running mesh refuses it within two seconds."""
    from serving.edge.key_file import remove_key

    where = _file(file)
    remove_key(where, name)
    print(f"removed {name!r} from {where}", file=sys.stderr)


def _file(file: Path | None) -> Path:
    return (file or Settings().edge.keys_file or DEFAULT_FILE).expanduser()


def _calls(text: str) -> Calls:
    found = next((known for known in CALLS if known == text), None)
    if found is None:
        raise BadInput(f"{text[:40]!r} is not allowed", field="--calls", fix=f"use one of {', '.join(CALLS)}")
    return found


def _use(text: str) -> Use:
    found = next((known for known in USES if known == text), None)
    if found is None:
        raise BadInput(f"{text[:40]!r} is not allowed", field="--use", fix=f"use one of {', '.join(USES)}")
    return found


def _row(key: "Key") -> dict[str, Any]:
    grant = key.grant
    return {
        "name": grant.name,
        "calls": grant.calls,
        "models": list(grant.models),
        "rate": key.rate,
        "use": grant.use,
    }
