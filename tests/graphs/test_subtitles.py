"""The real graph of subtitles in a real worker, with what the models would say."""

from pathlib import Path

from pydantic import JsonValue

from graphs.inputs import Studio
from graphs.subtitles import job_type
from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.jobs.records import JobRecord
from serving.jobs.submit import JobDesk, JobRequest
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.tasks import (
    AlignmentRequest,
    AlignmentResult,
    Span,
    TaskRequest,
    TaskResult,
    VoiceActivityResult,
    Word,
)
from serving.repository.identity import Identity
from tests.serving.jobs.office import Office, open_office

RECORDING = Path(__file__).parents[2] / "examples" / "subtitles" / "recording.flac"
TEXT = "A quiet room is never quiet."


class Listener:
    """Hears the given words, two a second, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def identity(self, request: TaskRequest, *, model: str | None = None, use: Use = COMMERCIAL) -> Identity:
        return Identity("listener", "hf:studio/listener", "1", type(request).__name__, "MIT", commercial_use=True)

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        self.asked += 1
        call.served_by = "ray/listener"
        if isinstance(request, AlignmentRequest):
            spoken = request.text.split()
            return AlignmentResult(
                words=[Word(text=word, start_s=at / 2, end_s=at / 2 + 0.4) for at, word in enumerate(spoken)]
            )
        return VoiceActivityResult(spans=[Span(start_s=0, end_s=4)], duration_s=4.0)


async def captions_of(artifacts: ArtifactStore, job: JobRecord) -> str:
    assert job.output is not None, job.error
    return (await artifacts.get_bytes(job.output.files["captions.srt"])).decode()


async def fork(office: Office, desk: JobDesk, parent: JobRecord, text: str) -> JobRecord:
    edits = {"results": {"captions": {"0": {"cues": {"1": {"text": text}}}}}}
    return await office.until((await desk.retry(parent.id, edits=edits)).id)


async def test_an_edited_caption_is_in_the_files_and_nothing_is_heard_again(tmp_path: Path) -> None:
    async with open_office(tmp_path / "home") as office:
        types = {"subtitle_generation": job_type(Studio(voices={}, languages={"alignment": ("en",)}, models={}))}
        desk, listener = JobDesk(office.store, types, office.artifacts), Listener()
        worker = await JobWorker.start(office.settings, types, listener)
        try:
            media = await office.artifacts.put_file(RECORDING, media_type="audio/flac")
            wanted: dict[str, JsonValue] = {"media": media.model_dump(), "language": "en", "transcript": TEXT}
            request = JobRequest(type="subtitle_generation", input=wanted)
            first = await office.until((await desk.submit(request))[0].id)
            assert first.state is JobState.COMPLETED, first.error
            edited = await fork(office, desk, first, "A silent room is never silent.")
            broken = await fork(office, desk, first, "no line is as long as this one " * 9)
        finally:
            await worker.shutdown()
        assert "A silent room is never silent." in (await captions_of(office.artifacts, edited))
        assert TEXT in (await captions_of(office.artifacts, first))
        assert listener.asked == 2
        assert [stage.parts_cached for stage in edited.stages] == [1, 1, 1, 0, 0]
        assert str(broken.error).startswith("captions: captions.cues.1.text: caption 1 does not fit")
