"""Which remote a model's source is; called by the cache.

The one invariant: secrets are read here, when they are needed, and go nowhere but into the remote.
"""

from pathlib import Path
from typing import Any, Final

from serving.errors import BadInput, foreign_text
from serving.repository.model import Model
from serving.repository.source import Address
from serving.settings import WeightsSettings
from serving.weights.bucket import BucketRemote
from serving.weights.dvc_remote import DvcRemote
from serving.weights.folder import FolderRemote
from serving.weights.hub import HubRemote
from serving.weights.mlflow_server import MlflowRemote
from serving.weights.remote import Remote

_MAX_TOKEN_BYTES: Final = 4096


def remote_of(model: Model, address: Address, settings: WeightsSettings) -> Remote:
    """The remote that the model's files come from.

    Raises:
        MissingDependency: a library for this kind is not installed.
        BadInput: a setting that it needs is missing or wrong.
    """
    source = model.card.source
    match address.kind:
        case "hf":
            token = read_token(settings.hub_token_file, "weights.hub_token_file")
            return HubRemote(
                address.place, source.revision, url=settings.hub_url, token=token, timeout_s=settings.timeout_s
            )
        case "s3":
            return _bucket(settings, f"s3://{address.place}")
        case "mlflow":
            if not settings.mlflow_url:
                fix = "set it to MLflow's tracking server"
                raise BadInput("no MLflow server is named", field="weights.mlflow_url", fix=fix)
            return MlflowRemote(
                address.place,
                url=settings.mlflow_url,
                token=read_token(settings.mlflow_token_file, "weights.mlflow_token_file"),
                timeout_s=settings.timeout_s,
                bucket=lambda url: _bucket(settings, url),
            )
        case "dvc":
            return DvcRemote(path_of(model, address), source.uri, lambda url, told: _bucket(settings, url, told))
        case "file":
            return FolderRemote(path_of(model, address), source.uri)
    raise BadInput(f"nothing is fetched from {address.kind}:", field="source.uri", fix="name another source")


def _bucket(settings: WeightsSettings, url: str, options: dict[str, Any] | None = None) -> BucketRemote:
    return BucketRemote(url, timeout_s=settings.timeout_s, request_s=settings.pull_s, options=options)


def path_of(model: Model, address: Address) -> Path:
    """Where a ``file:`` or ``dvc:`` address leads: relative ones begin at the model's folder."""
    return model.folder / Path(address.place).expanduser()


def read_token(path: Path | None, field: str) -> str | None:
    """The one line of a token's file; None without one; raises :class:`BadInput` that names the setting."""
    if path is None:
        return None
    try:
        with path.expanduser().open("rb") as stream:
            token = stream.read(_MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        told = foreign_text(getattr(error, "strerror", None) or "it is not ASCII")
        raise BadInput(f"{path} cannot be read: {told}", field=field, fix="name a file with one token") from error
    if not token or not token.isprintable() or len(token) > _MAX_TOKEN_BYTES or " " in token:
        raise BadInput(f"{path} does not hold one token", field=field, fix="write the token and nothing else")
    return token
