"""Provenance: what made an artifact, as the JSON object that lies beside its bytes; written by stages and uploads.

The one invariant: the record that came with the bytes first stays; equal bytes made again do not change it.
"""

import functools
import importlib.metadata
import time
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import Use

SCHEMA: Final = "reelmesh.artifact/1"


@functools.cache
def software_version() -> str:
    """Of Reelmesh, as installed."""
    return importlib.metadata.version("reelmesh")


class ModelUsed(BaseModel):
    """A model that took part.

    Attributes:
        model: its name in the repository.
        backend: what served it: triton, ray or saas.
        source: where its weights come from.
        revision: of the weights.
        license: SPDX identifier, or the licence's own name.
        commercial_use: ``True``, ``False`` or ``conditional``.
        condition: of a conditional licence; in commercial work it was accepted by the operator.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    backend: str | None = None
    source: str | None = None
    revision: str | None = None
    license: str | None = None
    commercial_use: bool | str | None = None
    condition: str | None = None


class Provenance(BaseModel):
    """How an artifact came to be.

    Attributes:
        schema_: the form of this record.
        source: ``upload`` for what a client sent, ``stage`` for what a job's stage made.
        sha256: of the bytes this record is about.
        media_type: IANA media type of those bytes.
        size_bytes: how many there are.
        name: the file name they were given.
        made_at: Unix seconds.
        software_version: of Reelmesh.
        job_id: the job that made it; None for uploads, like all that follows.
        job_type: the job's type.
        use: what the job was for.
        stage: the stage that made it.
        part: which of the stage's calls, from 0.
        models: in the order they were used.
        seeds: by what they seeded.
        prompt_sha256: digest of the text it was made from; the text itself stays with the job.
        inputs: SHA-256 of the artifacts that went in.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    schema_: Literal["reelmesh.artifact/1"] = Field(default=SCHEMA, alias="schema")
    source: Literal["upload", "stage"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: str = "application/octet-stream"
    size_bytes: int = Field(ge=0)
    name: str = "artifact"
    made_at: float
    software_version: str
    job_id: str | None = None
    job_type: str | None = None
    use: Use | None = None
    stage: str | None = None
    part: int | None = None
    models: tuple[ModelUsed, ...] = ()
    seeds: dict[str, int] = {}
    prompt_sha256: str | None = None
    inputs: tuple[str, ...] = ()

    @classmethod
    def of_upload(cls, ref: ArtifactRef) -> "Provenance":
        """What is known of bytes that a client sent now."""
        told = {"source": "upload", "made_at": time.time(), "software_version": software_version()}
        return cls.model_validate({**ref.model_dump(), **told})

    def to_json(self) -> bytes:
        """UTF-8, indented, as it lies in the store."""
        return self.model_dump_json(by_alias=True, indent=2).encode() + b"\n"
