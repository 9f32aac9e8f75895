"""The last stages the graphs share: compose the film, check the files, say what made them.

The one invariant: a job completes only with files that passed their own checks.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic import BaseModel, JsonValue

from graphs.captions import CaptionFiles
from graphs.inputs import Programme, VideoFormat
from graphs.sound import SoundFiles
from serving.artifacts.store import ArtifactStore
from serving.jobs.refs import walk_refs
from serving.jobs.types import JobContext, JobOutput
from serving.media.provenance import ModelUse, build_provenance, source_type, to_json
from serving.media.verify import Report, caption_checks, verify_programme, verify_sound
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    MAX_SECONDS,
    AudioMixRequest,
    AudioMixResult,
    CompositionRequest,
    CompositionResult,
    SplitScreen,
)
from serving.protocol.tasks import Sequence as SceneSequence
from serving.repository.model import Model

CAPTION_KINDS: Final = ("srt", "vtt", "ass")


MASTER_LUFS: Final[float] = AudioMixRequest.model_fields["loudness_lufs"].default
"""Loudness of a programme: what podcasts and films for the web are delivered at."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a graph made.

    Attributes:
        film: None where captions or sound alone were asked for.
        captions: None where there are none.
        mix: the sound, None where a source kept its own.
        sound: the mix in its formats, where it is a result of its own.
        pieces: further results by file name, as an engine made them.
        facts: what the graph itself has to tell.
        loudness_lufs: what the mix was to have.
    """

    film: CompositionResult | None = None
    captions: CaptionFiles | None = None
    mix: AudioMixResult | None = None
    sound: SoundFiles | None = None
    pieces: Mapping[str, ArtifactRef] = field(default_factory=dict)
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    loudness_lufs: float = MASTER_LUFS


class Screen(NamedTuple):
    """How a film is shown: its size and rate, the language spoken, whether captions are drawn into it."""

    video: VideoFormat
    language: str
    burn_in: bool


async def composed(
    job: JobContext,
    screen: Screen,
    scene: SplitScreen | SceneSequence,
    mix: AudioMixResult,
    captions: CaptionFiles | None,
) -> CompositionResult:
    """Put scene, sound and captions together (stage ``compose``)."""
    wanted = CompositionRequest(
        scene=scene,
        audio=mix.audio,
        subtitles=captions.srt if captions else None,
        burn_in=captions.ass if captions and screen.burn_in else None,
        language=screen.language,
        width=screen.video.width,
        height=screen.video.height,
        fps=screen.video.fps,
        duration_s=mix.duration_s,
    )
    return await job.run("compose", wanted, CompositionResult)


def screen_of(request: Programme) -> Screen:
    """How a programme is shown."""
    return Screen(request.video, request.language, request.captions.burn_in)


async def finish(
    job: JobContext, name: str, request: BaseModel, *, made: Made, models: Mapping[str, ModelUse]
) -> JobOutput:
    """Check the files and write their provenance (stage ``check``).

    Args:
        job: the job's context.
        name: stem of the files.
        request: what was asked for.
        made: what the graph made.
        models: every model of the repository by name.

    Raises:
        EngineFailed: a file failed its checks; the message names each with what was measured and wanted.
    """

    async def check() -> JobOutput:
        report = await _verified(job.artifacts, made)
        report.raise_if_failed()
        files = _files(name, made)
        inputs = {".".join(map(str, path)): ref for path, ref in walk_refs(request)}
        used = [models[model] for model in _model_names(job.served_by) if model in models]
        record = build_provenance(
            job={"id": job.job_id, "name": name, "use": job.use},
            source=source_type(
                from_media=bool(inputs), generated=made.mix is not None, trained=any(map(_is_trained, used))
            ),
            inputs=inputs,
            outputs=files,
            models=used,
            seeds={"programme": getattr(request, "seed", 0)},
            versions={"reelmesh": importlib.metadata.version("reelmesh")},
            checks=report.as_facts(),
        )
        files["provenance.json"] = await job.artifacts.put_bytes(
            to_json(record), media_type="application/json", name="provenance.json"
        )
        return JobOutput(files=files, facts=_facts(made, report))

    return await job.step("check", check)


def model_use(model: Model) -> ModelUse:
    """What the provenance says of a model."""
    card = model.card
    return ModelUse(
        model=model.name,
        task=card.task,
        source=card.source.uri,
        revision=card.source.revision,
        license=card.license.name,
        commercial_use=card.license.commercial_use,
        condition=card.license.condition,
    )


GENERATING = frozenset({"speech", "music", "image", "image_to_video", "lip_sync"})
"""Tasks whose results are new media, not a measurement or an arrangement."""


def _is_trained(use: ModelUse) -> bool:
    return use.task in GENERATING and not use.source.startswith("builtin:")


def _model_names(served_by: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition("/")[2] for name in served_by))


def _files(name: str, made: Made) -> dict[str, ArtifactRef]:
    files = {f"{name}.mp4": made.film.video, "thumbnail.jpg": made.film.thumbnail} if made.film else {}
    if made.sound is not None:
        files |= {f"{name}.wav": made.sound.wav, f"{name}.m4a": made.sound.m4a}
    if made.captions is not None:
        files |= {f"{name}.{kind}": getattr(made.captions, kind) for kind in CAPTION_KINDS}
    files |= made.pieces
    return {own: ref.model_copy(update={"name": own}) for own, ref in files.items()}


async def _verified(artifacts: ArtifactStore, made: Made) -> Report:
    captions = made.captions
    kinds = CAPTION_KINDS if captions is not None else ()
    texts = {kind: (await artifacts.get_bytes(getattr(captions, kind))).decode() for kind in kinds}
    if made.film is not None:
        return await verify_programme(
            await artifacts.local_path(made.film.video),
            audio_duration_s=made.mix.duration_s if made.mix else None,
            captions=texts,
            soft_subtitles=captions is not None,
            loudness_lufs=made.loudness_lufs if made.mix else None,
            moves=made.mix is not None,
        )
    if made.sound is not None and made.mix is not None:
        files = {kind: await artifacts.local_path(getattr(made.sound, kind)) for kind in SoundFiles.model_fields}
        return await verify_sound(
            files, duration_s=made.mix.duration_s, loudness_lufs=made.loudness_lufs, captions=texts
        )
    return Report(tuple(caption_checks(texts, MAX_SECONDS)))


def _facts(made: Made, report: Report) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"checks": list[JsonValue](report.as_facts())}
    if made.captions is not None:
        facts["cues"] = made.captions.cues
    if made.mix is not None:
        facts |= {"loudness_lufs": made.mix.loudness_lufs, "true_peak_dbtp": made.mix.true_peak_dbtp}
        facts["duration_s"] = made.mix.duration_s
    if made.film is not None:
        facts["duration_s"] = made.film.duration_s
    return facts | dict(made.facts)
