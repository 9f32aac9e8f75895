"""Every family of translators on its tiny checkpoint."""

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from serving.backends.call import Call
from serving.backends.ray.engines.network.runner import Ran
from serving.backends.ray.engines.translation.engine import TranslationEngine
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TranslationRequest, TranslationResult
from serving.repository.model import Source
from tests.servers.tiny import context_in, tiny_engine, tiny_model

FAMILIES = ("opus_mt_en_hi", "m2m100_418m", "nllb_600m", "seamless_m4t_v2")


class Desk:
    """One engine and what it writes."""

    def __init__(self, name: str, **card: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="translation-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)  # engines that do not load are closed by nobody
        self.context = context_in(self.folder)
        self.engine = cast(TranslationEngine, tiny_engine(name, self.context, **card))

    async def translate(self, *texts: str, call: Call | None = None, **fields: Any) -> TranslationResult:
        asked = {"texts": texts, "source_language": "en", "target_language": "hi"} | fields
        result = await self.engine.run(TranslationRequest.model_validate(asked), call or Call())
        assert isinstance(result, TranslationResult)
        return result

    async def run(self, *texts: str) -> Ran:
        """Past the first await, so that several are there at once."""
        request = TranslationRequest(texts=list(texts), source_language="en", target_language="hi")
        script = self.engine.prepare(request, {})
        return await self.engine.runner.run(script, Call(), self.engine.batch_key(script))

    async def sound(self, seed: int, seconds: float) -> ArtifactRef:
        samples = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds))
        soundfile.write(self.folder / "sound.wav", samples, 16_000)
        return await self.context.artifacts.put_file(self.folder / "sound.wav", media_type="audio/wav")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FAMILIES)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    desk = Desk(request.param)
    yield desk
    await desk.engine.close()
    shutil.rmtree(desk.folder)


@pytest.fixture
def damaged(tmp_path: Path) -> Any:
    """Loads an engine from a copy of its checkpoint that something was done to."""

    def load(name: str, damage: Any, allow_pickles: list[str] | None = None) -> TranslationEngine:
        copy = tmp_path / "checkpoint"
        shutil.copytree(tiny_model(name).card.source.uri.removeprefix("file:"), copy)
        damage(copy)
        source = Source(uri=f"file:{copy}", allow_pickles=allow_pickles or [])
        return cast(TranslationEngine, tiny_engine(name, context_in(tmp_path), source=source))

    return load
