"""ArtifactRef: how stored bytes are named everywhere; used by tasks, jobs and stores.

The one invariant: a reference is immutable and names the bytes by their SHA-256, so equal bytes have equal references.
"""

from pydantic import BaseModel, ConfigDict, Field


class ArtifactRef(BaseModel):
    """Names stored bytes.

    Attributes:
        sha256: lower-case hex digest of the bytes.
        media_type: IANA media type, for example ``audio/wav``.
        size_bytes: length of the bytes.
        name: file name a person would give it; not part of its identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"format": "artifact"})

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    media_type: str = Field(default="application/octet-stream", max_length=127)
    size_bytes: int = Field(ge=0)
    name: str = Field(default="artifact", min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")
