"""WebhookCheck: what can be known to be wrong with a job's webhook before the job is accepted; called by the job desk.

The one invariant: a webhook that passes is signed with its tenant's secret and leads to an allowed address now; the
sender checks the address again at every try.
"""

import contextlib
import difflib
from collections.abc import Sequence

from serving.errors import BadInput, Unavailable, shown
from serving.jobs.webhooks.policy import EVENTS
from serving.jobs.webhooks.secrets import Secrets
from serving.net import AddressRules, check_public_url
from serving.settings import WebhookSettings


class WebhookCheck:
    """Checks webhooks.

    Args:
        settings: of webhooks.
        secrets: opened.
    """

    def __init__(self, settings: WebhookSettings, secrets: Secrets) -> None:
        self._rules = AddressRules(allow_private=settings.allow_private, allowed_hosts=settings.allowed_hosts)
        self._secrets = secrets

    async def __call__(self, url: str, events: Sequence[str], tenant: str) -> None:
        """Raise :class:`BadInput` that names the field of the request and the fix."""
        check_events(events)
        # A name server that is away now is asked again when there is something to send.
        with contextlib.suppress(Unavailable):
            await check_public_url(url, self._rules, "webhook.url")
        if not await self._secrets.signers(tenant):
            raise BadInput(
                f"the mesh keeps no secret to sign webhooks of {shown(tenant)} with",
                field="webhook",
                fix="have its operator set webhooks.secrets_file, or leave the webhook out",
            )


def check_events(events: Sequence[str]) -> None:
    """Raise :class:`BadInput` for an event that there is not."""
    for index, event in enumerate(events):
        if event not in EVENTS:
            near = difflib.get_close_matches(event, EVENTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise BadInput(
                f"there is no event {shown(event)}",
                field=f"webhook.events[{index}]",
                fix=f"{hint}Events: {', '.join(EVENTS)}",
            )
