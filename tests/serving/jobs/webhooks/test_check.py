"""What is wrong with a webhook is said before the job is accepted."""

from pathlib import Path

import pytest

from serving.errors import BadInput
from serving.jobs.webhooks.check import WebhookCheck
from serving.jobs.webhooks.secrets import Secrets
from serving.settings import WebhookSettings

PUBLIC = "https://8.8.8.8/hook"


@pytest.mark.parametrize(
    ("url", "events", "field", "words"),
    [
        pytest.param("http://127.0.0.1/", [], "webhook.url", "not public", id="private"),
        pytest.param("http://[::ffff:169.254.169.254]/", [], "webhook.url", "metadata", id="metadata"),
        pytest.param("gopher://8.8.8.8/", [], "webhook.url", "not reached by http", id="scheme"),
        pytest.param(PUBLIC, ["job.completed", "job.compelted"], "webhook.events[1]", "did you mean", id="event"),
        pytest.param(PUBLIC, ["x" * 5000], "webhook.events[0]", "there is no event", id="long event"),
    ],
)
async def test_a_wrong_webhook_is_refused_by_its_field(
    secrets_file: Path, url: str, events: list[str], field: str, words: str
) -> None:
    check = WebhookCheck(WebhookSettings(), Secrets(secrets_file))
    with pytest.raises(BadInput, match=words) as caught:
        await check(url, events, "anybody")
    assert caught.value.field == field
    assert len(str(caught.value)) < 500


async def test_a_right_one_passes_where_its_tenant_has_a_secret(secrets_file: Path) -> None:
    await WebhookCheck(WebhookSettings(), Secrets(secrets_file))(PUBLIC, ["job.completed"], "studio")
    with pytest.raises(BadInput, match="keeps no secret") as caught:
        await WebhookCheck(WebhookSettings(), Secrets(None))(PUBLIC, [], "studio")
    assert caught.value.field == "webhook"
