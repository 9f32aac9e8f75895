"""Every family of translators on its tiny checkpoint."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from serving.backends.call import Call
from serving.backends.ray.engines.network.runner import Ran
from serving.backends.ray.engines.translation.engine import TranslationEngine
from serving.protocol.tasks import TranslationRequest, TranslationResult
from tests.serving.backends.ray.engines.place import Place

FAMILIES = ("opus_mt_en_hi", "m2m100_418m", "nllb_600m", "seamless_m4t_v2")


class Desk(Place[TranslationEngine]):
    """One translator."""

    def __init__(self, name: str, **card: Any) -> None:
        super().__init__(name, TranslationEngine, **card)

    async def translate(self, *texts: str, **fields: Any) -> TranslationResult:
        result = await self.engine.run(request_of(*texts, **fields), Call())
        assert isinstance(result, TranslationResult)
        return result

    async def run(self, *texts: str) -> Ran:
        """Past the first await, so that several are there at once."""
        script = self.engine.prepare(request_of(*texts), {})
        return await self.engine.runner.run(script, Call(), self.engine.batch_key(script))


def request_of(*texts: str, **fields: Any) -> TranslationRequest:
    """From English into Hindi, unless fields say otherwise."""
    return TranslationRequest.model_validate(
        {"texts": texts, "source_language": "en", "target_language": "hi"} | fields
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FAMILIES)
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    desk = Desk(request.param)
    yield desk
    await desk.close()
