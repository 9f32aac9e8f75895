"""Exports every variant of a recorded part into a folder, with its ``part.json``; called by optimize.parts.run.

The one invariant: the folder is a version of the part, whole, but for its report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from optimize.diffusion_fixes import ALL_FIXES
from optimize.onnx_export import export
from optimize.parts.part import Part
from optimize.parts.precision import DTYPES, at_border, in_precision
from optimize.parts.variants import Flat, Group, distinct_sizes, dynamic_axes, feed, groups, with_batches
from serving.backends.ray.parts.capture import RecordedCall
from serving.errors import EngineFailed
from serving.repository.part_file import MOST_VARIANTS, PART_FILE, PartFile, Precision, Variant

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """What a part is exported from.

    Attributes:
        model: its name.
        name: of the part.
        part: the declaration.
        module: in the loaded engine.
        calls: that were recorded.
        digest: of the weights.
    """

    model: str
    name: str
    part: Part
    module: nn.Module
    calls: Sequence[RecordedCall]
    digest: str

    def groups(self) -> list[Group]:
        """The variants, with calls of several rows.

        Raises:
            EngineFailed: the requests never called the part, or in more ways than a part has files.
        """
        return self._groups

    @cached_property
    def _groups(self) -> list[Group]:
        if not self.calls:
            fix = "add a request that needs it, or take the part out of the family"
            raise EngineFailed("the sample requests never call this part", field=self.name, fix=fix)
        found = groups(self.part, self.calls)
        if len(found) > MOST_VARIANTS:
            problem = f"the requests call it in {len(found)} ways, and a part has {MOST_VARIANTS} files at most"
            raise EngineFailed(problem, field=self.name, fix="give requests of fewer sizes")
        return [with_batches(group, self.module) for group in found]


def build(source: Source, precision: Precision, folder: Path, *, opset: int, notify: Notify) -> Mapping[str, str]:
    """Export the part in a floating precision.

    Args:
        source: what is exported.
        precision: fp32, fp16 or bf16.
        folder: existing and empty.
        opset: of ONNX.
        notify: told of every file that begins.

    Returns:
        Versions of the tools, for the report; ``fixes`` are those that were applied.

    Raises:
        EngineFailed: the exporter fails; says where.
    """
    tools: dict[str, str] = {}
    fixes: set[str] = set()
    variants = []
    for index, group in enumerate(source.groups()):
        variant = _variant(group, "model.onnx" if index == 0 else f"model-{index + 1}.onnx", precision)
        notify(f"export {variant.file}")
        with in_precision(source.module, precision):
            exported = export(
                Flat(source.module, group),
                feed(group, group.traced, DTYPES[precision]),
                [tensor.name for tensor in variant.inputs],
                [tensor.name for tensor in variant.outputs],
                dynamic_axes(group.inputs),
                folder / variant.file,
                output_axes=dynamic_axes(group.outputs),
                opset=opset,
                fixes=[ALL_FIXES[fix] for fix in source.part.fixes],
                notify=notify,
            )
        tools |= exported.tools
        fixes |= set(exported.fixes)
        variants.append(variant)
    write_part(source, precision, variants, folder)
    return {**tools, "fixes": ", ".join(sorted(fixes))}


def write_part(source: Source, precision: Precision, variants: Sequence[Variant], folder: Path) -> PartFile:
    """Write ``part.json``."""
    part = PartFile(
        model=source.model,
        part=source.name,
        at=source.part.at,
        adapter=source.part.adapter,
        keeps=source.part.keeps,
        precision=precision,
        weights_digest=source.digest,
        variants=list(variants),
    )
    (folder / PART_FILE).write_text(part.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return part


def _variant(group: Group, file: str, precision: Precision) -> Variant:
    return Variant(
        file=file,
        call=group.traced.call,
        answer=group.traced.answer,
        inputs=[at_border(tensor, precision) for tensor in group.inputs],
        outputs=[at_border(tensor, precision) for tensor in group.outputs],
        sizes=distinct_sizes(group),
    )


def entering(group: Group, call: RecordedCall, variant: Variant) -> dict[str, torch.Tensor]:
    """A call's inputs, by name, as a variant's file takes them."""
    return {
        tensor.name: value.to(getattr(torch, tensor.dtype))
        for tensor, value in zip(variant.inputs, feed(group, call), strict=True)
    }
