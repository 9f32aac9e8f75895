"""What made a file, as JSON: inputs, models, seeds, checks, and that a machine made it; used by the graphs.

The one invariant: a pure builder; equal arguments give equal bytes, so the record is itself an artifact.
Words follow C2PA's actions assertion and IPTC's digital source types, so that other tools understand the label.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from serving.protocol.artifact import ArtifactRef

SCHEMA: Final = "reelmesh.provenance/1"


class DigitalSourceType(StrEnum):
    """IPTC's words for how media came to be (http://cv.iptc.org/newscodes/digitalsourcetype/)."""

    TRAINED = "trainedAlgorithmicMedia"
    """Made by a model trained on media."""
    COMPOSITE = "compositeSynthetic"
    """Several elements, at least one of them synthetic."""
    ALGORITHMIC = "algorithmicMedia"
    """Made by an algorithm that was not trained on media."""
    ENHANCED = "algorithmicallyEnhanced"
    """A recording that an algorithm changed, for example by burning captions in."""

    @property
    def uri(self) -> str:
        """The term's address."""
        return f"http://cv.iptc.org/newscodes/digitalsourcetype/{self.value}"


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model that took part.

    Attributes:
        model: its name in the repository.
        task: what it did.
        source: where its weights come from.
        revision: of the weights.
        license: SPDX identifier or the licence's own name.
        commercial_use: ``True``, ``False`` or ``conditional``.
        condition: of a conditional licence; in commercial work it was accepted by the operator.
    """

    model: str
    task: str
    source: str
    revision: str | None
    license: str
    commercial_use: bool | str
    condition: str | None = None


def source_type(*, from_media: bool, generated: bool, trained: bool) -> DigitalSourceType:
    """The label that fits.

    Args:
        from_media: media of the caller (portraits, pictures, recordings) went in.
        generated: speech, motion, music or pictures were generated.
        trained: a generating model was trained on media.
    """
    if not generated:
        return DigitalSourceType.ENHANCED
    if from_media:
        return DigitalSourceType.COMPOSITE
    return DigitalSourceType.TRAINED if trained else DigitalSourceType.ALGORITHMIC


def build_provenance(
    *,
    job: Mapping[str, Any],
    source: DigitalSourceType,
    inputs: Mapping[str, ArtifactRef],
    outputs: Mapping[str, ArtifactRef],
    models: Sequence[ModelUse] = (),
    seeds: Mapping[str, int] | None = None,
    versions: Mapping[str, str] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The record as JSON values.

    Args:
        job: what identifies the run (id, type, when it was made); taken over as it is.
        source: see :func:`source_type`.
        inputs: files that went in, by their place in the request.
        outputs: files that came out, by name.
        models: in the order they were used.
        seeds: by what they seeded.
        versions: of the mesh and of programs that shaped the file.
        checks: see :meth:`serving.media.verify.Report.as_facts`.
    """
    versions = dict(versions or {})
    agent = {"name": "Reelmesh", "version": versions.get("reelmesh", "")}
    action = "c2pa.edited" if source is DigitalSourceType.ENHANCED else "c2pa.created"
    return {
        "schema": SCHEMA,
        "ai_generated": source is not DigitalSourceType.ENHANCED,
        "digital_source_type": source.uri,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [{"action": action, "digitalSourceType": source.uri, "softwareAgent": agent}],
                },
            }
        ],
        "job": dict(job),
        "inputs": _files(inputs),
        "models": [asdict(model) for model in models],
        "seeds": dict(seeds or {}),
        "versions": versions,
        "checks": [dict(check) for check in checks],
        "outputs": _files(outputs),
    }


def _files(refs: Mapping[str, ArtifactRef]) -> list[dict[str, Any]]:
    return [{"role": role, **ref.model_dump(mode="json")} for role, ref in refs.items()]


def to_json(record: Mapping[str, Any]) -> bytes:
    """UTF-8, indented, keys in the order built."""
    return (json.dumps(record, ensure_ascii=False, indent=2) + "\n").encode()
