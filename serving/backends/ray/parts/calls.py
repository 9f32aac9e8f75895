"""A module's call as flat named tensors and a tree of all else, and back; used to export parts and to run them.

The one invariant: ``rebuild(flatten(value))`` is the value again, and two calls with equal trees differ in the numbers
and sizes of their tensors alone.
"""

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from serving.errors import EngineFailed

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import Cache

Tensors = dict[str, "torch.Tensor"]
"""Flat tensors by name, in the order of the call."""


@dataclass(frozen=True, slots=True)
class SizeOf:
    """Stands in a call for a plain number that is the size of one of its tensors; adapters put it there.

    Attributes:
        tensor: its flat name.
        axis: of it.
    """

    tensor: str
    axis: int


_LIBRARIES: Final = ("diffusers.", "transformers.", "TTS.", "serving.")
"""Where classes of answers may come from; a tree is a file's content and must not name anything else."""


def bound(module: "nn.Module", args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
    """A call's arguments by name, without those that equal their defaults: it does not matter who left them out."""
    signature = inspect.signature(type(module).forward)
    found = signature.bind(module, *args, **kwargs)
    names = list(signature.parameters.values())
    given: dict[str, object] = {}
    for parameter in names[1:]:
        if parameter.name not in found.arguments:
            continue
        value = found.arguments[parameter.name]
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        elif not _is_default(value, parameter.default):
            given[parameter.name] = value
    return given


def flatten(value: object, name: str, into: Tensors) -> JsonValue:
    """The tree of a value; its tensors go into ``into``, under names that say where they were.

    Args:
        value: tensors in dicts, lists, tuples, named ones too, answers of the libraries and caches, beside plain
            constants.
        name: of the value.
        into: grows.

    Raises:
        EngineFailed: something else is in it.
    """
    import torch

    if isinstance(value, torch.Tensor):
        same = next((known for known, tensor in into.items() if tensor is value), None)
        if same is None:
            into[name] = value
        return {"tensor": same or name}
    if value is None or isinstance(value, SizeOf | bool | int | float | str):
        return {"tensor": value.tensor, "size": value.axis} if isinstance(value, SizeOf) else {"value": value}
    if (layers := _layers(value)) is not None:
        kind = "crossed" if hasattr(value, "cross_attention_cache") else "cache"
        return {kind: [flatten(layer, f"{name}.{index}", into) for index, layer in enumerate(layers)]}
    named = _named(value)
    if named is not None:
        tree: dict[str, JsonValue] = {
            str(key): flatten(one, f"{name}.{key}" if name else str(key), into) for key, one in named.items()
        }
        if type(value) is dict:
            return {"dict": tree}
        return {"answer": f"{type(value).__module__}:{type(value).__qualname__}", "dict": tree}
    if isinstance(value, tuple | list):
        rows = [flatten(one, f"{name}.{index}", into) for index, one in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": rows}
    raise EngineFailed(f"{name} is a {type(value).__name__}, which cannot be an input of an exported part", field=name)


def rebuild(tree: JsonValue, tensors: Mapping[str, "torch.Tensor"]) -> object:
    """The value of a tree."""
    assert isinstance(tree, dict)  # noqa: S101 - a tree is made by flatten
    (kind, held), *more = tree.items()
    if kind == "tensor":
        found = tensors[str(held)]
        return found.shape[int(str(more[0][1]))] if more else found
    if kind == "value":
        return held
    if kind in ("cache", "crossed"):
        assert isinstance(held, list)  # noqa: S101
        return _cache([rebuild(layer, tensors) for layer in held], crossed=kind == "crossed")
    if kind == "answer":
        values = more[0][1]
        assert isinstance(values, dict)  # noqa: S101
        return _answer(str(held))(**{key: rebuild(one, tensors) for key, one in values.items()})
    if isinstance(held, dict):
        return {key: rebuild(one, tensors) for key, one in held.items()}
    assert isinstance(held, list)  # noqa: S101
    rows = [rebuild(one, tensors) for one in held]
    return tuple(rows) if kind == "tuple" else rows


def collect(tree: JsonValue, value: object, into: Tensors) -> None:
    """The tensors of a value by the names that an equal value's tree gave them.

    Args:
        tree: of :func:`flatten`, of a value that is built the same way.
        value: with tensors of its own.
        into: grows.
    """
    import torch

    assert isinstance(tree, dict)  # noqa: S101 - a tree is made by flatten
    (kind, held), *more = tree.items()
    if isinstance(value, torch.Tensor):
        into[str(held)] = value
        return
    inner = more[0][1] if more else held
    if isinstance(inner, dict):
        named = _named(value)
        assert named is not None  # noqa: S101
        for key, one in inner.items():
            collect(one, named[key], into)
    elif isinstance(inner, list):
        rows = _layers(value) if kind in ("cache", "crossed") else value
        assert isinstance(rows, list | tuple)  # noqa: S101
        for one, row in zip(inner, rows, strict=True):
            collect(one, row, into)


def key_of(tree: JsonValue) -> str:
    """Equal for equal trees."""
    return json.dumps(tree, sort_keys=True)


def _is_default(value: object, default: object) -> bool:
    if value is default:
        return True
    plain = isinstance(value, bool | int | float | str) and type(value) is type(default)
    return plain and value == default


def _named(value: object) -> Mapping[str, object] | None:
    """What a value holds by names: a mapping as it is, a named tuple's fields; None for anything else."""
    if isinstance(value, Mapping):
        return value
    fields = getattr(value, "_fields", None)
    return {name: getattr(value, name) for name in fields} if isinstance(value, tuple) and fields else None


def _layers(value: object) -> "list[tuple[torch.Tensor, ...]] | None":
    """Keys and values of every filled layer of transformers' caches; None for anything else.

    A layer of a cache for encoder and decoder has four: its own, and those of the encoder once they are known.
    """
    if hasattr(value, "cross_attention_cache") and hasattr(value, "self_attention_cache"):
        own, crossed = _layers(value.self_attention_cache) or [], _layers(value.cross_attention_cache) or []
        return [(*layer, *(crossed[index] if crossed else ())) for index, layer in enumerate(own)]
    layers = getattr(value, "layers", None)
    if layers is None or not hasattr(value, "get_seq_length"):
        return None
    return [(layer.keys, layer.values) for layer in layers if layer.is_initialized]


def _cache(layers: list[object], *, crossed: bool) -> "Cache":
    from transformers import DynamicCache, EncoderDecoderCache

    own, other = DynamicCache(), DynamicCache()
    for index, layer in enumerate(layers):
        assert isinstance(layer, tuple)  # noqa: S101 - keys and values
        own.update(layer[0], layer[1], index)
        if len(layer) > 2:  # noqa: PLR2004 - and the encoder's
            other.update(layer[2], layer[3], index)
    return EncoderDecoderCache(own, other) if crossed else own


def _answer(address: str) -> type:
    module, _, name = address.partition(":")
    if not module.startswith(_LIBRARIES):
        raise EngineFailed(f"a part may not answer with a {address}", field="answer", fix="publish the part again")
    found: type = getattr(importlib.import_module(module), name)
    return found
