"""Locust users that have short recordings captioned; run by `python -m loadtests jobs` or by locust itself.

Each user makes a recording with the mesh's own speech model, uploads it, submits a subtitle job, polls until
it has ended and downloads the captions. The one invariant: a job counts as right only if its captions hold a
line with times.
"""

import io
import json
import time
import wave
from typing import Any, Final, cast

from locust import FastHttpUser, constant, task
from locust.exception import RescheduleTask

from loadtests import listener as _listener  # noqa: F401  for what it registers
from loadtests import payloads
from loadtests.payloads import first_element, split_answer

JOB_TYPE: Final = "subtitle_generation"
WHOLE: Final = "job, submit to files"
"""Name of the entry that times a job as its user sees it."""
POLL_S: Final = 0.25
JOB_TIMEOUT_S: Final = 120.0
FINAL: Final = frozenset({"completed", "failed", "cancelled"})


class JobUser(FastHttpUser):
    """One person who wants captions and waits for them."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Make and upload the recording."""
        request = payloads.speech(" ".join(payloads.SENTENCES))
        body, headers = request.http()
        with self.client.post(
            request.path, data=cast("Any", body), headers=headers, name="speech", catch_response=True
        ) as answer:
            self.ensure(answer, 200)
            recording = first_element(split_answer(dict(answer.headers.items()), answer.content)[1]["AUDIO"])
        with wave.open(io.BytesIO(recording)) as wav:
            self.seconds = wav.getnframes() / wav.getframerate()
        with self.client.post(
            "/v1/artifacts?name=line.wav",
            data=cast("Any", recording),
            headers={"Content-Type": "audio/wav"},
            name="upload",
            catch_response=True,
        ) as answer:
            self.ensure(answer, 200, 201)
            self.media = answer.json()

    @task
    def caption(self) -> None:
        """One job from submission to downloaded captions."""
        started = time.perf_counter()
        problem, size = self.run_job()
        self.environment.events.request.fire(
            request_type="JOB",
            name=WHOLE,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=size,
            exception=RuntimeError(problem) if problem else None,
            context={},
        )

    def run_job(self) -> tuple[str, int]:
        """What went wrong (empty if nothing) and the size of the captions."""
        transcript = " ".join(payloads.SENTENCES)
        body = {"type": JOB_TYPE, "input": {"media": self.media, "language": "en", "transcript": transcript}}
        with self.client.post("/v1/jobs", json=body, name="submit", catch_response=True) as answer:
            self.ensure(answer, 202)
            job = answer.json()
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while job["state"] not in FINAL:
            if time.monotonic() > deadline:
                return f"still {job['state']} after {JOB_TIMEOUT_S:.0f} s", 0
            time.sleep(POLL_S)  # gevent's, by locust's patching
            with self.client.get(job["url"], name="poll", catch_response=True) as answer:
                self.ensure(answer, 200)
                job = answer.json()
        if job["state"] != "completed":
            return f"{job['state']}: {json.dumps(job.get('error'))[:200]}", 0
        captions = next((file for name, file in job["artifacts"].items() if name.endswith("srt")), None)
        if captions is None:
            return f"no SRT among {sorted(job['files'])}", 0
        with self.client.get(captions["url"], name="download", catch_response=True) as answer:
            self.ensure(answer, 200)
            return ("" if " --> " in answer.text else "captions without times"), len(answer.content)

    def ensure(self, answer: Any, *allowed: int) -> None:  # noqa: ANN401  locust's own
        """Mark a wrong status as failure and give this round up, after a breath."""
        if answer.status_code not in allowed:
            answer.failure(f"{answer.status_code}: {(answer.text or '')[:120]}")
            time.sleep(1)
            raise RescheduleTask
