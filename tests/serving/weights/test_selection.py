"""Which files are taken, and which pickles are refused by their names."""

import pytest

from serving.errors import BadInput
from serving.weights.remote import RemoteFile
from serving.weights.selection import pickle_by_name, select

DIFFUSERS = [
    "README.md", "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json", "demo.png", "run.py",
]  # fmt: skip


def taken(names: list[str], patterns: list[str] | None = None, allow: list[str] | None = None) -> list[str]:
    files = [RemoteFile(name, 1, "") for name in names]
    return [file.name for file in select(files, patterns or [], allow or [], "hf:a/b")]


@pytest.mark.parametrize(
    ("names", "patterns", "allow", "expected"),
    [
        pytest.param(DIFFUSERS, [], [], {*DIFFUSERS} - {"README.md", "unet/diffusion_pytorch_model.bin", "demo.png",
                                                        "run.py"}, id="a diffusers model without its pickles"),
        pytest.param(["config.json", "model.bin", "vocabulary.txt"], [], [],
                     {"config.json", "model.bin", "vocabulary.txt"}, id="CTranslate2"),
        pytest.param(["a/m.safetensors", "b/m.safetensors"], ["a/*"], [], {"a/m.safetensors"}, id="a folder"),
        pytest.param(["a/m.safetensors", "m.json"], ["*.safetensors"], [], {"a/m.safetensors"}, id="in every folder"),
        pytest.param(["net.pth", "other.pth", "c.json"], [], ["net.pth"], {"net.pth", "c.json"}, id="an allowed one"),
        pytest.param(["x/net.pth"], ["x/*"], ["x/*.pth"], {"x/net.pth"}, id="pickles by pattern"),
    ],
)  # fmt: skip
def test_files_are_taken_by_pattern(
    names: list[str], patterns: list[str], allow: list[str], expected: set[str]
) -> None:
    assert set(taken(names, patterns, allow)) == expected


@pytest.mark.parametrize(
    ("names", "patterns", "allow"),
    [
        pytest.param(["pytorch_model.bin", "config.json"], [], [], id="weights are pickles alone"),
        pytest.param(["m.safetensors", "net.pth"], ["*"], [], id="a pattern takes one"),
        pytest.param(["a.pth", "b.pth"], ["*.pth"], ["a.pth"], id="another one is allowed"),
        pytest.param(["NET.PTH"], [], [], id="in capitals"),
    ],
)
def test_pickles_that_the_card_does_not_name_are_refused(
    names: list[str], patterns: list[str], allow: list[str]
) -> None:
    with pytest.raises(BadInput, match=r"is a pickle.*allow_pickles: \["):
        taken(names, patterns, allow)


def test_nothing_to_take_says_what_there_is() -> None:
    with pytest.raises(BadInput, match=r"none of the files wanted: there are a\.png, b\.png"):
        taken(["a.png", "b.png"])
    with pytest.raises(BadInput, match="it is empty"):
        taken([])


def test_names_of_pickles() -> None:
    assert all(map(pickle_by_name, ["a.pt", "x/y.ckpt", "pytorch_model-00001-of-00002.bin", "adapter_model.bin"]))
    assert not any(map(pickle_by_name, ["model.bin", "a.safetensors", "pt", "ckpt.json"]))
