from pathlib import Path

from serving.artifacts.provenance import ModelUsed, Provenance
from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef


def record(ref: ArtifactRef, **more: object) -> Provenance:
    return Provenance.model_validate(
        {
            "source": "stage",
            "sha256": ref.sha256,
            "size_bytes": ref.size_bytes,
            "made_at": 12.5,
            "software_version": "1",
            "models": [ModelUsed(model="speech", backend="ray", revision="abc", license="MIT", commercial_use=True)],
            "seeds": {"voice": 7},
            **more,
        }
    )


async def test_a_record_comes_back_as_it_was_laid_beside_the_bytes(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    ref = await store.put_bytes(b"sound", media_type="audio/wav", name="a.wav")
    assert await store.provenance(ref) is None
    told = record(ref, job_id="j", job_type="film", stage="speech", part=3, prompt_sha256="a" * 64, inputs=["b" * 64])
    await store.put_provenance(ref, told)
    assert await store.provenance(ref) == told
    path = await store.local_path(ref)
    assert b'"schema": "reelmesh.artifact/1"' in path.with_name(f"{path.name}.provenance.json").read_bytes()


async def test_equal_bytes_made_again_keep_the_first_record(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    ref = await store.put_bytes(b"sound", media_type="audio/wav", name="a.wav")
    await store.put_provenance(ref, record(ref, job_id="first"))
    await store.put_provenance(ref, record(ref, job_id="second"))
    kept = await store.provenance(ref)
    assert kept is not None
    assert kept.job_id == "first"
