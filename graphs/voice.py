"""voice_synthesis: a text, or lines for several voices, becomes one mastered speech file and a clip of every line.

The one invariant: every line is a part of its own, so a line that changes is spoken anew and no other is.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final

from pydantic import Field, JsonValue

from graphs.captions import Spoken, captioned
from graphs.costs import SPEECH, sound_cost_s, spoken_s
from graphs.inputs import Lufs, Studio, VideoFormat, VoiceName, check_language, check_voice, first_of
from graphs.programme import MASTER_LUFS, Made, finish
from graphs.script import MAX_TURN_CHARS, MAX_TURNS, check_spoken, paragraphs
from graphs.sound import TRUE_PEAK_DBTP, encoded
from graphs.speech import can_time, mix_of, word_times
from graphs.timeline import Pauses, Segment, lay_out_turns, shift_words
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.protocol.tasks import AudioMixResult, Language, Message, Seed, SpeechRequest, SpeechResult

STAGES = (
    Stage("voices", JobState.PROCESSING, weight=4),
    Stage("words", JobState.PROCESSING, weight=1),
    Stage("mix", JobState.RENDERING, weight=4),
    Stage("encode", JobState.RENDERING, weight=1),
    Stage("captions", JobState.POST_PROCESSING, weight=1),
    Stage("check", JobState.UPLOADING, weight=2),
)

RASTER_FPS: Final = 50
"""Speech alone has no frames; its lines lie on a raster of 20 ms."""
LEAD_IN_S: Final = 0.2
LEAD_OUT_S: Final = 0.4
"""Room for the first breath and the last echo; loudness is only defined for 0.4 s and more."""

MAX_CHARS: Final = 10_000
"""About eleven minutes of speech; twice as much took 120 s on two busy cores, which is all the time the job has."""

Pace = Annotated[float, Field(ge=0.5, le=2.0)]


class Line(Message):
    """What is said at once; a field that is left out takes the request's own."""

    text: str = Field(min_length=1, max_length=MAX_TURN_CHARS, description="What is said.")
    voice: VoiceName | None = Field(default=None, description="Who says it.")
    language: Language | None = Field(default=None, description="In which language.")
    speed: Pace | None = Field(default=None, description="Factor on the voice's normal pace.")


class VoiceRequest(Message):
    """What to say: a ``text``, whose paragraphs are its lines, or the ``lines`` themselves."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_CHARS)] | None = Field(
        default=None, description="What one voice says; empty lines part paragraphs. Give this or lines."
    )
    lines: Annotated[list[Line], Field(min_length=1, max_length=MAX_TURNS)] | None = Field(
        default=None, description="What is said, one after another. Give this or text."
    )
    voice: VoiceName = Field(default="narrator", description="Who speaks.")
    language: Language = Field(default="en", description="Language of the text and of the captions.")
    speed: Pace = Field(default=1.0, description="Factor on the voice's normal pace.")
    pause_s: float = Field(default=0.35, ge=0, le=10, description="Silence between two lines, in seconds.")
    loudness_lufs: Lufs = Field(default=MASTER_LUFS, description="Loudness of the master; broadcast in Europe is -23.")
    captions: bool = Field(default=True, description="Also write captions with the time of every word.")
    seed: Seed = Field(default=0, description="The same request with the same seed sounds the same.")


def speech_of(request: VoiceRequest) -> list[SpeechRequest]:
    """Every line as the speech task takes it; raises BadInput for what cannot be spoken."""
    if (request.text is None) == (request.lines is None):
        problem = "there is nothing to say" if request.text is None else "there are both a text and lines"
        raise BadInput(problem, field="text", fix="give either text or lines")
    if request.text is not None:
        lines = [Line(text=part) for part in paragraphs(request.text, field="text")]
    else:
        lines = request.lines or []
        for index, line in enumerate(lines):
            check_spoken(line.text, "the line", field=f"lines[{index}].text")
    if (length := sum(len(line.text) for line in lines)) > MAX_CHARS:
        raise BadInput(
            f"{length} characters are over the bound", field="lines", fix=f"say at most {MAX_CHARS} in one job"
        )
    return [
        SpeechRequest(
            text=line.text,
            voice=line.voice or request.voice,
            language=line.language or request.language,
            speed=line.speed or request.speed,
            seed=request.seed,
        )
        for line in lines
    ]


async def check(request: VoiceRequest, _artifacts: ArtifactStore, *, studio: Studio) -> None:
    """Refuse before any work: texts without words or over the bounds, voices and languages that no model has."""
    for index, wanted in enumerate(speech_of(request)):
        own = request.lines[index] if request.lines else None
        place = f"lines[{index}]."
        check_voice(wanted.voice, studio.voices, field=f"{place if own and own.voice else ''}voice")
        field = f"{place if own and own.language else ''}language"
        check_language(wanted.language, studio, "speech", field=field)


def predict(request: VoiceRequest) -> float:
    """Seconds of CPU."""
    said_s = sum(spoken_s(line.text) for line in request.lines or ()) + spoken_s(request.text or "")
    return said_s * SPEECH + sound_cost_s(said_s, None)


async def voice(job: JobContext, request: VoiceRequest, *, studio: Studio) -> JobOutput:
    """Speak, put in order, master."""
    asked = speech_of(request)
    voices = await job.map("voices", asked, SpeechResult)
    segments = lay_out_turns(
        [spoken.duration_s for spoken in voices], RASTER_FPS, Pauses(LEAD_IN_S, request.pause_s, LEAD_OUT_S)
    )
    spoken = []
    if request.captions and can_time(asked, voices, studio):
        spoken = [
            Spoken(speaker=wanted.voice, words=shift_words(words, segment.speech_start_s))
            for wanted, words, segment in zip(asked, await word_times(job, asked, voices), segments, strict=True)
        ]
    master = {"loudness_lufs": request.loudness_lufs, "true_peak_dbtp": TRUE_PEAK_DBTP}
    mix = await job.run("mix", mix_of(voices, segments).model_copy(update=master), AudioMixResult)
    sound = await encoded(job, mix)
    captions = await captioned(job, "speech", spoken, request.language, VideoFormat()) if spoken else None
    made = Made(
        captions=captions,
        mix=mix,
        sound=sound,
        pieces={name_of(index): line.audio for index, line in enumerate(voices)} if len(voices) > 1 else {},
        facts={"lines": told(asked, segments), "seed": request.seed},
        loudness_lufs=request.loudness_lufs,
    )
    return await finish(job, "speech", request, made=made, models=studio.models)


def name_of(index: int) -> str:
    """File name of a line's clip; numbers start at 1 and sort as they are said."""
    return f"line-{index + 1:03}.wav"


def told(asked: Sequence[SpeechRequest], segments: Sequence[Segment]) -> list[JsonValue]:
    """Where each line lies in the master, for machines that cut it."""
    return [
        {
            "voice": wanted.voice,
            "language": wanted.language,
            "start_s": round(segment.speech_start_s, 3),
            "end_s": round(segment.speech_end_s, 3),
        }
        for wanted, segment in zip(asked, segments, strict=True)
    ]


def models_of(_request: VoiceRequest) -> dict[str, str | None]:
    """The models that a request is sure to ask."""
    return first_of("speech", "audio_mix")


def job_type(studio: Studio) -> JobType:
    """The job type, knowing what this repository offers."""
    return JobType(
        name="voice_synthesis",
        request=VoiceRequest,
        graph=partial(voice, studio=studio),
        stages=STAGES,
        lane=Lane.HIGH,
        timeout_s=120,
        tries=3,
        check=partial(check, studio=studio),
        description="A text, or lines for several voices, becomes one mastered speech file and a clip of every line.",
        predict=predict,
        models=models_of,
    )
