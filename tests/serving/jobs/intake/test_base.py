import pytest

from serving.errors import BadInput, TooLarge
from serving.jobs.intake.base import (
    MAX_MESSAGE_ID_CHARS,
    MAX_SOURCE_CHARS,
    Delivery,
    answer_of,
    failure_of,
    message_id_of,
    progress_of,
    request_of,
    source_of,
)
from serving.jobs.records import EventRecord, JobError, JobRecord
from serving.jobs.types import JobOutput, JobState, Lane
from serving.protocol.artifact import ArtifactRef

REF = ArtifactRef(sha256="a" * 64, size_bytes=3, media_type="text/vtt", name="film.vtt")


def record(**changes: object) -> JobRecord:
    values: dict[str, object] = {
        "id": "1",
        "type": "film",
        "state": JobState.COMPLETED,
        "lane": Lane.LOW,
        "progress": 1.0,
        "created_at": 1.0,
        "timeout_s": 1.0,
        "tries": 1,
    }
    return JobRecord.model_validate({**values, **changes})


def test_a_message_is_the_body_of_a_submission() -> None:
    request = request_of(Delivery("1", b'{"type": "film", "input": {"title": "x"}, "lane": "high"}'), 1000)
    assert (request.type, request.input, request.lane, request.use) == ("film", {"title": "x"}, Lane.HIGH, None)
    free = request_of(Delivery("1", b'{"type": "film", "input": {}, "use": "non_commercial"}'), 1000)
    assert free.use == "non_commercial"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(b"", "body", id="empty"),
        pytest.param(b"\xff\xfe", "body", id="not UTF-8"),
        pytest.param(b"[1]", "body", id="a list"),
        pytest.param(b"[" * 900, "body", id="deep"),
        pytest.param(b'{"type": "film"}', "input", id="without input"),
        pytest.param(b'{"type": "film", "input": {}, "colour": 1}', "colour", id="a stray field"),
        pytest.param(b'{"type": 5, "input": {}}', "type", id="a wrong type"),
        pytest.param(b'{"type": "film", "input": {}, "use": "personal"}', "use", id="a use there is not"),
    ],
)
def test_a_malformed_message_is_told_with_the_field(body: bytes, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        request_of(Delivery("1", body), 1000)
    assert caught.value.field == field


def test_what_the_source_could_not_read_is_told_before_anything_else() -> None:
    problem = BadInput("it is pickled", field="content_type")
    with pytest.raises(BadInput, match="pickled"):
        request_of(Delivery("1", b'{"type": "film", "input": {}}', problem=problem), 1000)


def test_a_message_over_the_bound_is_not_parsed() -> None:
    with pytest.raises(TooLarge):
        request_of(Delivery("1", b"{" * 1001), 1000)


def test_long_names_stay_distinct_within_the_columns() -> None:
    long = "x" * 300
    ids = {message_id_of(Delivery(name, b"")) for name in (long, long + "y", "short", "")}
    assert len(ids) == 4
    assert max(map(len, ids)) <= MAX_MESSAGE_ID_CHARS
    names = {source_of(name) for name in (long, long + "y", "redis:jobs")}
    assert len(names) == 3
    assert "redis:jobs" in names
    assert max(map(len, names)) <= MAX_SOURCE_CHARS


def test_an_answer_names_files_and_facts() -> None:
    answer = answer_of(record(output=JobOutput(files={"captions": REF}, facts={"clips": 3})))
    assert answer["files"] == {"captions": "/v1/jobs/1/artifacts/captions"}
    assert answer["state"] == "completed"
    assert answer["output"]["facts"] == {"clips": 3}  # type: ignore[index,call-overload]
    assert answer["error"] is None


def test_a_failure_is_told_in_one_line() -> None:
    failed = record(state=JobState.FAILED, error=JobError(code="internal", message="no strings", stage="score"))
    assert failure_of(failed) == "score: no strings"
    assert failure_of(record(state=JobState.CANCELLED)) == "the job was cancelled"
    assert answer_of(failed)["error"]["stage"] == "score"  # type: ignore[index,call-overload]


def test_progress_is_told_from_0_to_1() -> None:
    event = EventRecord(job_id="1", seq=4, at=1.0, kind="progress", state=JobState.RENDERING, progress=1 / 3)
    assert progress_of(event) == {"job_id": "1", "state": "rendering", "stage": None, "progress": 0.3333, "seq": 4}
