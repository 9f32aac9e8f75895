"""LoRA adapters: by request, a bounded number, and a bad one leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.diffusion.adapters import misfits
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput, EngineFailed, NotFound
from serving.protocol.tasks import ImageRequest
from serving.repository.model import Adapter, Source
from tests.servers.tiny import context_in, tiny_engine, tiny_model
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE = ImageRequest(prompt="a lighthouse at dusk", width=64, height=64, steps=2, seed=7)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


def spoilt(folder: Path) -> dict[str, Adapter]:
    """Adapters that are none of this model's, by what is wrong with them."""
    good = load_file(tiny_checkpoint("sdxl") / "adapters" / "ink" / "pytorch_lora_weights.safetensors")
    first = next(iter(good))
    written = {
        "misshapen": {key: torch.zeros(4, 5) if key == first else tensor for key, tensor in good.items()},
        "elsewhere": {key.replace("down_blocks", "sideways"): tensor for key, tensor in good.items()},
        "alien": {"hello.weight": torch.zeros(3)},
        "half": {key: tensor for key, tensor in good.items() if "lora_A" in key},
    }
    for name, tensors in written.items():
        (folder / name).mkdir()
        save_file(tensors, folder / name / "lora.safetensors")
    (folder / "cut").mkdir()
    (folder / "cut" / "lora.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0")
    (folder / "two").mkdir()
    for name in ("a", "b"):
        save_file(good, folder / "two" / f"{name}.safetensors")
    names = (*written, "cut", "two", "absent")
    return {name: Adapter(source=Source(uri=f"file:{folder / name}")) for name in names}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(context: EngineContext, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    adapters = tiny_model("sdxl").card.adapters | spoilt(tmp_path_factory.mktemp("spoilt"))
    adapters["faint"] = adapters["ink"].model_copy(update={"scale": 0.25})
    engine = tiny_engine("sdxl", context, adapters=adapters, options={"steps": 2, "batch": 4, "adapters": 2})
    yield engine
    await engine.close()


async def test_each_adapter_makes_a_picture_of_its_own_and_none_stays(engine: Any) -> None:
    plain = await laws.sha(engine, PICTURE)
    found = [await laws.sha(engine, PICTURE, adapter=name) for name in ("ink", "clay", "faint", "ink")]
    assert len({plain, *found}) == 4
    assert found[0] == found[3]
    assert await laws.sha(engine, PICTURE) == plain


async def test_what_was_used_longest_ago_goes_first(engine: Any) -> None:
    for name in ("ink", "clay", "ink", "faint"):
        await laws.sha(engine, PICTURE, adapter=name)
    assert list(engine.adapters.loaded) == ["ink", "faint"]
    assert sorted(engine.pipeline.get_list_adapters()["unet"]) == ["faint", "ink"]


async def test_only_equal_adapters_share_a_batch(engine: Any) -> None:
    named = ["ink", None, "ink", "clay", None]
    alone = [await laws.sha(engine, PICTURE, adapter=name) for name in ("ink", None, "clay")]
    together = await asyncio.gather(
        *(engine.run(PICTURE.model_copy(update={"adapter": name}), Call()) for name in named)
    )
    assert [result.made.batch for result in together] == [2, 2, 2, 1, 2]
    assert len(set(alone)) == 3
    assert together[3].image.sha256 == alone[2]


@pytest.mark.parametrize(
    ("name", "kind", "field", "words"),
    [
        ("misshapen", BadInput, "adapter", "'misshapen' does not fit the model: .*lora_A"),
        ("elsewhere", BadInput, "adapter", "'elsewhere' does not fit the model: .*there is no layer 'sideways"),
        ("alien", BadInput, "adapter", "'alien' does not fit the model"),
        ("half", BadInput, "adapter", "'half' does not fit the model"),
        ("two", BadInput, "adapter", "'two' holds 2 safetensors files: name the one in its source.files"),
    ],
)
async def test_a_bad_adapter_is_one_line_and_leaves_nothing(
    engine: Any, name: str, kind: type[Exception], field: str, words: str
) -> None:
    plain, inked = await laws.sha(engine, PICTURE), await laws.sha(engine, PICTURE, adapter="ink")
    await laws.refused(lambda: laws.sha(engine, PICTURE, adapter=name), kind, field, words)
    assert await laws.sha(engine, PICTURE) == plain
    assert await laws.sha(engine, PICTURE, adapter="ink") == inked
    assert name not in engine.adapters.loaded


@pytest.mark.parametrize(("name", "kind"), [("cut", BadInput), ("absent", NotFound)])
async def test_an_adapter_that_cannot_be_read_says_so(engine: Any, name: str, kind: type[Exception]) -> None:
    plain = await laws.sha(engine, PICTURE)
    with pytest.raises(kind) as caught:
        await laws.sha(engine, PICTURE, adapter=name)
    assert "\n" not in str(caught.value)
    assert await laws.sha(engine, PICTURE) == plain


async def test_an_adapter_that_fails_half_way_is_not_in_the_next_picture(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await laws.sha(engine, PICTURE)

    def fail(*_: object) -> None:
        raise RuntimeError("somewhere inside")

    with monkeypatch.context() as patched:
        patched.setattr(engine.pipeline, "set_adapters", fail)
        with pytest.raises(EngineFailed):
            await laws.sha(engine, PICTURE, adapter="clay")
    assert await laws.sha(engine, PICTURE) == plain


async def test_an_adapter_that_others_pushed_out_while_it_waited_is_read_again(engine: Any) -> None:
    faint, *_ = [await laws.sha(engine, PICTURE, adapter=name) for name in ("faint", "ink", "clay")]
    engine.adapters.fetch("faint")
    engine.adapters._read.clear()
    await engine.runner.call(lambda: engine.adapters.use("faint"))
    assert await laws.sha(engine, PICTURE, adapter="faint") == faint


async def test_a_model_without_its_last_adapter_is_as_it_was_loaded(context: EngineContext) -> None:
    engine: Any = tiny_engine("sdxl", context)
    keys = set(engine.pipeline.unet.state_dict())
    await laws.sha(engine, PICTURE, adapter="ink")
    assert set(engine.pipeline.unet.state_dict()) != keys
    await engine.runner.call(lambda: engine.adapters._drop("ink"))
    assert set(engine.pipeline.unet.state_dict()) == keys
    await engine.close()


async def test_misfits_are_layers_that_are_not_there_or_have_another_size() -> None:
    tensors = {
        "unet.a.lora_A.weight": torch.zeros(4, 8),
        "unet.a.lora_B.weight": torch.zeros(6, 4),
        "unet.b.lora_A.weight": torch.zeros(4, 7),
        "unet.c.lora_B.weight": torch.zeros(6, 4),
        "text_encoder.d.lora_A.weight": torch.zeros(4, 4),
    }
    assert misfits(tensors, "unet", {"a": (6, 8), "b": (6, 8)}) == [
        "'b' is [6, 8], lora_A [4, 7]",
        "there is no layer 'c'",
    ]
