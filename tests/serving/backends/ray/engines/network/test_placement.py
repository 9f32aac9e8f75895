"""Where a network goes, and that what it cannot run is refused first."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.backends.ray.engines.network.faults import free_memory
from serving.backends.ray.engines.network.placement import Placement, placement_of
from serving.errors import BadInput
from serving.repository.model import Share
from tests.servers.tiny import changed, context_in, tiny_model


def test_the_card_says_the_precision_and_the_operator_may_say_another(tmp_path: Path) -> None:
    model = changed(tiny_model("whisper_large_v3"), precision="bf16")
    assert placement_of(model, context_in(tmp_path)) == Placement("cpu", "bf16")
    assert placement_of(model, context_in(tmp_path, precision="fp32")) == Placement("cpu", "fp32")


def test_a_precision_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    model = changed(tiny_model("whisper_large_v3"), precision="int8")
    with pytest.raises(BadInput, match=r"precision: .* cannot run int8: use fp32 or fp16 or bf16"):
        placement_of(model, context_in(tmp_path))
    with pytest.raises(BadInput, match="fp16 on a CPU is slow"):
        placement_of(changed(model, precision="fp16"), context_in(tmp_path))


def test_a_network_without_torch_is_placed_on_a_gpu_without_asking_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Made before: what imports transformers without torch has none for good.
    model = changed(tiny_model("whisper_large_v3"), precision="fp16")
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    context = context_in(tmp_path, device="cuda:1")
    assert placement_of(model, context, uses_torch=False) == Placement("cuda:1", "fp16", None)


def test_memory_is_given_back_without_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    free_memory("cuda:0")
    assert "torch" not in sys.modules


def test_a_process_is_held_to_what_its_replica_leases_and_a_model_to_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, str]] = []
    card = SimpleNamespace(total_memory=80 << 30)  # no machine of the tests has a GPU
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr(
        "torch.cuda.set_per_process_memory_fraction", lambda share, device: told.append((share, device))
    )
    voice, ears = tiny_model("mms_tts_eng"), tiny_model("whisper_transformers")
    group = context_in(tmp_path, device="cuda:0", gpu_share=0.75)
    first = placement_of(changed(voice, share=Share(gpu=0.25)), group)
    second = placement_of(changed(ears, share=Share(gpu=0.5)), group)
    whole = placement_of(changed(ears, share=Share(gpu=1)), context_in(tmp_path, device="cuda:0", gpu_share=1.0))
    assert [each.memory_bytes for each in (first, second, whole)] == [20 << 30, 40 << 30, 80 << 30]
    assert told == [(0.75, "cuda:0"), (0.75, "cuda:0")]
