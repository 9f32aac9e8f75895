from pathlib import Path

import pytest

from serving.errors import BadInput
from serving.placement.cards import Card
from serving.placement.demand import loads_of, machine_cards, read_cards
from serving.repository.load import load_repository

MODELS = Path(__file__).parents[3] / "model_repository"


def test_models_that_lease_a_gpu_have_loads_and_others_do_not() -> None:
    repository = load_repository([MODELS])
    found = {load.model: load for load in loads_of(repository.models.values(), {"sdxl": frozenset({"wav2lip"})})}
    assert "compositor" not in found
    sdxl = found["sdxl"]
    assert (sdxl.weights_mib, sdxl.peak_mib, sdxl.pace) == (6630, 11000 - 6630, "any")
    assert sdxl.near == {"wav2lip"}
    assert (found["whisper_large_v3"].pace, found["cogvideox_2b"].pace) == ("quick", "long")


def test_a_model_without_figures_is_refused_by_name() -> None:
    model = load_repository([MODELS]).get("sdxl")
    model.card = model.card.model_copy(update={"memory": None})
    with pytest.raises(BadInput, match=r"sdxl/model.yaml:memory: leases a GPU and says nothing of its memory: run"):
        loads_of([model])


def test_a_file_lists_cards_by_node_and_slices_in_place_of_their_card(tmp_path: Path) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(
        "- {node: a, memory_gib: 24, kind: NVIDIA L4, count: 2}\n- {node: a, memory_gib: 80, slices_gib: [40, 20]}\n"
    )
    assert read_cards(file) == [
        Card("a/0", "a", 24 * 1024, "NVIDIA L4"),
        Card("a/1", "a", 24 * 1024, "NVIDIA L4"),
        Card("a/2/0", "a", 40 * 1024, "slice", is_slice=True),
        Card("a/2/1", "a", 20 * 1024, "slice", is_slice=True),
    ]
    assert [card.name for card in machine_cards([24576, 24576])] == ["here/0", "here/1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1", "this is no list: write a list of {node"),
        ("- {node: a}", r"\[0\]:memory_gib: Field required"),
        ("- {node: a, memory_gib: -1}", r"\[0\]:memory_gib: Input should be greater than 0"),
        ("- {node: a, memory_gib: 24, speed: 3}", r"\[0\]:speed: Extra inputs"),
        (
            "- {node: a, memory_gib: 24, slices_gib: [20, 20]}",
            r"\[0\]:slices_gib: its slices have 40 GiB",
        ),
        ("- {node: a, memory_gib: 24, count: 100}", r"\[0\]:count"),
        ("- [", "cannot be read: ParserError"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_entry_and_field(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "cards.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=words):
        read_cards(file)
    with pytest.raises(BadInput, match="cannot be read: FileNotFoundError"):
        read_cards(tmp_path / "none.yaml")
