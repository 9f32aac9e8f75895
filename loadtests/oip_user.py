"""Locust users that infer by HTTP with binary tensors; run by `python -m loadtests oip` or by locust itself.

The one invariant: an answer counts as right only if it holds the output asked for, with bytes in it.
"""

import random
from typing import Any, cast

from locust import FastHttpUser, constant, task

from loadtests import listener as _listener  # noqa: F401  for what it registers
from loadtests import payloads
from loadtests.payloads import WEIGHTS, Payload, split_answer


def chosen_models(text: str) -> list[str]:
    """Models to send to, each as often as its weight; KeyError names one that is not known."""
    names = [name.strip() for name in text.split(",")] if text else list(WEIGHTS)
    return [name for name in names for _ in range(WEIGHTS[name])]


class OipUser(FastHttpUser):
    """One client that sends its next request when it has the answer."""

    wait_time = constant(0)

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  locust's own
        super().__init__(*args, **options)
        self.models = chosen_models(self.environment.parsed_options.models)
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
