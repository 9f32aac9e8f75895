"""The last stages the graphs share: compose the film, check the files, say what made them.

The one invariant: a job completes only with files that passed their own checks.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, JsonValue

from graphs.captions import CaptionFiles
from graphs.inputs import Programme
from serving.artifacts.store import ArtifactStore
from serving.jobs.refs import walk_refs
from serving.jobs.types import JobContext, JobOutput
from serving.media.provenance import ModelUse, build_provenance, source_type, to_json
from serving.media.verify import Report, caption_checks, verify_programme
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


@dataclass(frozen=True, slots=True)
class Made:
    """What a graph made: a film (None where only captions were asked for), its captions and its sound."""

    film: CompositionResult | None
    captions: CaptionFiles
    mix: AudioMixResult | None = None


async def composed(
    job: JobContext,
    request: Programme,
    scene: SplitScreen | SceneSequence,
    mix: AudioMixResult,
    captions: CaptionFiles,
) -> CompositionResult:
    """Put scene, sound and captions together (stage ``compose``)."""
    wanted = CompositionRequest(
        scene=scene,
        audio=mix.audio,
        subtitles=captions.srt,
        burn_in=captions.ass if request.captions.burn_in else None,
        language=request.language,
        width=request.video.width,
        height=request.video.height,
        fps=request.video.fps,
        duration_s=mix.duration_s,
    )
    return await job.run("compose", wanted, CompositionResult)


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
            job={"id": job.job_id, "name": name},
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
    )


GENERATING = frozenset({"speech", "music", "image", "image_to_video", "lip_sync"})
"""Tasks whose results are new media, not a measurement or an arrangement."""


def _is_trained(use: ModelUse) -> bool:
    return use.task in GENERATING and not use.source.startswith("builtin:")


def _model_names(served_by: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.rpartition("/")[2] for name in served_by))


def _files(name: str, made: Made) -> dict[str, ArtifactRef]:
    files = {f"{name}.mp4": made.film.video, "thumbnail.jpg": made.film.thumbnail} if made.film else {}
    files |= {f"{name}.{kind}": getattr(made.captions, kind) for kind in CAPTION_KINDS}
    return {own: ref.model_copy(update={"name": own}) for own, ref in files.items()}


async def _verified(artifacts: ArtifactStore, made: Made) -> Report:
    texts = {kind: (await artifacts.get_bytes(getattr(made.captions, kind))).decode() for kind in CAPTION_KINDS}
    if made.film is None:
        return Report(tuple(caption_checks(texts, MAX_SECONDS)))
    return await verify_programme(
        await artifacts.local_path(made.film.video),
        audio_duration_s=made.mix.duration_s if made.mix else None,
        captions=texts,
        loudness_lufs=AudioMixRequest.model_fields["loudness_lufs"].default if made.mix else None,
        moves=made.mix is not None,
    )


def _facts(made: Made, report: Report) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {"cues": made.captions.cues, "checks": list[JsonValue](report.as_facts())}
    if made.film is not None:
        facts["duration_s"] = made.film.duration_s
    return facts
