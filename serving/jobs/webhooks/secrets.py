"""The secrets that webhooks are signed with, from a YAML file of the operator's; read by WebhookCheck and the sender.

The one invariant: a secret comes from the file alone. It is in no request, no row, no answer, no log and no repr.
"""

import asyncio
import base64
import binascii
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
import yaml
from standardwebhooks import Webhook

from serving.errors import BadInput

log = structlog.get_logger()

FIELD: Final = "webhooks.secrets_file"
EVERYBODY_ELSE: Final = "*"
"""The entry for tenants that have none of their own."""
PREFIX: Final = "whsec_"
MIN_BYTES: Final = 24
MAX_BYTES: Final = 64
"""Bounds of the standard on a secret's size."""
MAX_FILE_BYTES: Final = 1 << 20
_MAX_SECRETS: Final = 4
"""Secrets of one tenant that sign side by side while one replaces another."""
_HOW: Final = f"`echo {PREFIX}$(openssl rand -base64 32)` makes one"

Keys = Mapping[str, Sequence[Webhook]]


def parse_secrets(text: str) -> Keys:
    """The signers by tenant; raises :class:`BadInput` that names the entry, never its secret."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        # The parser's own message would repeat the line, and the secret in it.
        raise BadInput("is no YAML", field=FIELD, fix="write `tenant: whsec_...` on each line") from error
    if not isinstance(value, dict):
        raise BadInput("is no map of tenants to secrets", field=FIELD, fix="write `tenant: whsec_...` on each line")
    return {str(tenant): _signers(str(tenant), entry) for tenant, entry in value.items()}


def _signers(tenant: str, entry: object) -> list[Webhook]:
    secrets = entry if isinstance(entry, list) else [entry]
    if not 0 < len(secrets) <= _MAX_SECRETS:
        raise BadInput(
            f"has {len(secrets)} secrets", field=f"{FIELD}: {tenant[:64]}", fix=f"from one to {_MAX_SECRETS}"
        )
    return [_signer(tenant, secret) for secret in secrets]


def _signer(tenant: str, secret: object) -> Webhook:
    try:
        if not isinstance(secret, str) or not secret.startswith(PREFIX):
            raise ValueError
        size = len(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
        if not MIN_BYTES <= size <= MAX_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        problem = f"is no {PREFIX} and {MIN_BYTES} to {MAX_BYTES} bytes in base64"
        raise BadInput(problem, field=f"{FIELD}: {tenant[:64]}", fix=_HOW) from None
    return Webhook(secret)


class Secrets:
    """The file, read again when it has changed; one that became wrong leaves the secrets read before it.

    Args:
        path: None signs nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: Keys = {}
        self._seen: tuple[int, int] | None = None

    async def open(self) -> None:
        """Read the file; raises :class:`BadInput` if it is not there or wrong."""
        await asyncio.to_thread(self._read)

    async def signers(self, tenant: str) -> Sequence[Webhook]:
        """Who signs for a tenant; empty where no secret is kept for it."""
        try:
            await asyncio.to_thread(self._read)
        except BadInput as error:
            log.warning("webhook_secrets_refused", error=str(error))
        return self._keys.get(tenant) or self._keys.get(EVERYBODY_ELSE) or []

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return
            if found.st_size > MAX_FILE_BYTES:
                raise BadInput(f"has {found.st_size} bytes", field=FIELD, fix=f"at most {MAX_FILE_BYTES}")
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{self._path} cannot be read", field=FIELD, fix="check the path and its rights") from error
        self._keys, self._seen = parse_secrets(text), seen


def headers(signers: Sequence[Webhook], message_id: str, at: datetime.datetime, body: str) -> dict[str, str]:
    """The three headers of Standard Webhooks; several signers sign side by side.

    Args:
        signers: at least one.
        message_id: the same at every try.
        at: of this try, in UTC.
        body: as it goes over the wire.
    """
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signer.sign(message_id, at, body) for signer in signers),
    }
