"""Locust users that infer by HTTP with binary tensors; run by `python -m loadtests oip` or by locust itself.

The one invariant: an answer counts as right only if it holds the output asked for, with bytes in it.

``REELMESH_LOAD_MODELS`` (comma-separated) restricts the models.
"""

import os
import random
from typing import Any, Final, cast

from locust import FastHttpUser, constant, task

from loadtests import listener as _listener  # noqa: F401  for what it registers
from loadtests import payloads
from loadtests.payloads import Payload, split_answer

WEIGHTS: Final = {"log_mel": 5, "voice_activity": 5, "speech": 1}
"""A subtitle job hears everything and speaks nothing, a podcast both: mostly small requests, some long ones.
"""


def chosen_models() -> list[str]:
    """Models to send to, each as often as its weight."""
    wanted = os.environ.get("REELMESH_LOAD_MODELS", ",".join(WEIGHTS)).split(",")
    return [name for name in wanted for _ in range(WEIGHTS[name.strip()])]


class OipUser(FastHttpUser):
    """One client that sends its next request when it has the answer."""

    wait_time = constant(0)

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  locust's own
        super().__init__(*args, **options)
        self.models = chosen_models()
        ready = {
            "log_mel": [payloads.log_mel()],
            "voice_activity": [payloads.voice_activity()],
            "speech": [payloads.speech(text) for text in payloads.SENTENCES],
        }
        self.requests = {name: [(one, *one.http()) for one in ready[name]] for name in set(self.models)}

    @task
    def infer(self) -> None:
        """Send one request of a model chosen by weight."""
        payload, body, headers = random.choice(self.requests[random.choice(self.models)])
        with self.client.post(
            payload.path, data=cast("Any", body), headers=headers, name=payload.model, catch_response=True
        ) as answer:
            problem = self.problem(payload, answer)
            if problem:
                answer.failure(problem)

    def problem(self, payload: Payload, answer: Any) -> str:  # noqa: ANN401  locust's own
        """What is wrong with an answer; empty if nothing."""
        if answer.status_code != 200:  # noqa: PLR2004
            return f"{answer.status_code}: {(answer.text or '')[:120]}"
        try:
            _, outputs = split_answer(dict(answer.headers.items()), answer.content)
        except (ValueError, KeyError) as error:
            return f"broken answer: {error}"
        return "" if outputs.get(payload.output) else f"no {payload.output} in the answer"
