"""Which files of a source are taken, and which of those may be pickles; used before anything is fetched.

The one invariant: a file that is a pickle by its name is taken only if the card names it in ``allow_pickles``.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from serving.errors import BadInput
from serving.weights.remote import RemoteFile

DEFAULT_FILES: Final = (
    "*.safetensors", "*.json", "*.txt", "*.model", "*.yaml", "*.yml", "*.spm", "*.jinja", "*.tiktoken",
    "*.onnx", "*.onnx.data", "*.onnx_data", "*.gguf", "*.tflite", "*.npz", "model.bin", "merges.*", "vocab.*",
)  # fmt: skip
"""What is taken where the card says nothing: weights that are no pickles, configurations, tokenizers; ``model.bin`` is
CTranslate2's."""
PICKLE_NAMES: Final = (
    "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*pytorch_model*.bin", "adapter_model.bin",
    "training_args.bin", "optimizer.bin", "scheduler.bin",
)  # fmt: skip
"""Names that only pickles have; other ``.bin`` files are told by their content."""
WEIGHTS: Final = ("*.safetensors", "*.onnx", "*.gguf", "*.tflite", "*.bin", "*.npz")


def select(
    listed: Sequence[RemoteFile], patterns: Sequence[str], allow_pickles: Sequence[str], uri: str
) -> tuple[RemoteFile, ...]:
    """The files to take.

    Args:
        listed: all there are.
        patterns: of the card's ``source.files``; a pattern without ``/`` is held against the last part of the name.
            Empty means :data:`DEFAULT_FILES`.
        allow_pickles: names or patterns of files that may be pickles; they are taken too.
        uri: for messages.

    Raises:
        BadInput: nothing fits, or the weights are pickles that the card does not allow.
    """
    wanted = [*(patterns or DEFAULT_FILES), *allow_pickles]
    taken = tuple(file for file in listed if matches(file.name, wanted))
    pickles = [file.name for file in listed if pickle_by_name(file.name) and not matches(file.name, allow_pickles)]
    refused = [file.name for file in taken if file.name in pickles] if patterns else []
    if not refused and pickles and not any(matches(file.name, [*WEIGHTS, *allow_pickles]) for file in taken):
        refused = pickles
    if refused:
        raise pickle_refused(uri, refused[0])
    if patterns and (absent := [one for one in patterns if not any(matches(file.name, [one]) for file in listed)]):
        raise BadInput(f"{uri} has no file {absent[0]!r}", field="source.files", fix=_there(listed))
    taken = tuple(file for file in taken if file.name not in pickles)
    if not taken:
        raise BadInput(f"{uri} has none of the files wanted", field="source.files", fix=_there(listed))
    return taken


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file's name fits one of the patterns."""
    last = name.rpartition("/")[2]
    return any(fnmatchcase(name if "/" in pattern else last, pattern) for pattern in patterns)


def pickle_by_name(name: str) -> bool:
    """Whether only pickles are named like that."""
    return matches(name.lower(), PICKLE_NAMES)


def pickle_refused(uri: str, name: str) -> BadInput:
    """The one line about a pickle that the card does not allow."""
    return BadInput(
        f"{uri}: {name} is a pickle, which can run code when it is loaded",
        field="source.allow_pickles",
        fix=f"name a source with safetensors, convert it, or, if you trust it, add allow_pickles: [{name}]",
    )


def _there(listed: Sequence[RemoteFile]) -> str:
    names = [file.name for file in listed[:5]]
    more = f" and {len(listed) - len(names)} more" if len(listed) > len(names) else ""
    return f"there are {', '.join(names)}{more}" if names else "it is empty: put the weights there"
