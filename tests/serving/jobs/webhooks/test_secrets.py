"""The file of secrets, and what must never be seen of it."""

import base64
import datetime
import os
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from serving.errors import BadInput
from serving.jobs.webhooks.secrets import Secrets, headers, parse_secrets
from tests.serving.jobs.webhooks.conftest import SECRET

OTHER = "whsec_" + base64.b64encode(b"another secret of some 30 bytes").decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("[a, b]", "no map", id="list"),
        pytest.param("", "no map", id="empty"),
        pytest.param("studio: {", "no YAML", id="yaml"),
        pytest.param(f"studio: {SECRET[6:]}", "studio: is no whsec_", id="prefix"),
        pytest.param("studio: whsec_c2hvcnQ=", "24 to 64 bytes", id="short"),
        pytest.param("studio: whsec_%%%", "24 to 64 bytes", id="base64"),
        pytest.param("studio: 17", "24 to 64 bytes", id="number"),
        pytest.param("studio: []", "has 0 secrets", id="none"),
        pytest.param(f"studio: [{', '.join([SECRET] * 5)}]", "has 5 secrets", id="many"),
    ],
)
def test_a_wrong_file_is_refused_without_showing_a_secret(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        parse_secrets(text)
    assert SECRET[6:] not in str(caught.value)
    assert "openssl" in str(caught.value) or caught.value.fix


async def test_a_tenant_has_its_own_secret_or_everybodys(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yaml"
    path.write_text(f"studio: {OTHER}\n'*': {SECRET}\n")
    secrets = Secrets(path)
    await secrets.open()
    now = datetime.datetime.now(tz=datetime.UTC)
    for tenant, secret in (("studio", OTHER), ("anybody", SECRET)):
        told = headers(await secrets.signers(tenant), "msg_1", now, "{}")
        assert Webhook(secret).verify("{}", told) == {}
    assert SECRET[6:] not in repr(vars(secrets))


async def test_while_a_secret_is_replaced_both_sign(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yaml"
    path.write_text(f"studio: [{SECRET}, {OTHER}]\n")
    secrets = Secrets(path)
    told = headers(await secrets.signers("studio"), "msg_1", datetime.datetime.now(tz=datetime.UTC), "{}")
    assert Webhook(SECRET).verify("{}", told) == Webhook(OTHER).verify("{}", told) == {}
    assert await secrets.signers("nobody") == []


async def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yaml"
    path.write_text(f"studio: {SECRET}\n")
    secrets = Secrets(path)
    await secrets.open()
    path.write_text("studio: nonsense\n")
    os.utime(path, ns=(1, 1))
    assert len(await secrets.signers("studio")) == 1
    path.write_text(f"studio: [{SECRET}, {OTHER}]\n")
    os.utime(path, ns=(2, 2))
    assert len(await secrets.signers("studio")) == 2


async def test_a_missing_file_is_told_at_the_start_and_none_signs_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"webhooks\.secrets_file"):
        await Secrets(tmp_path / "none.yaml").open()
    nothing = Secrets(None)
    await nothing.open()
    assert await nothing.signers("anybody") == []
