"""TensorRT plans of a published part, beside it as ``<model>_<part>_trt``, version by version; called by the command.

The one invariant: a plan's version is that of the part that it was built of.
"""

from dataclasses import replace
from pathlib import Path

from optimize.publish import replace_text
from optimize.tensorrt import triton
from optimize.tensorrt.build import build_plan
from optimize.tensorrt.builder import Notify
from optimize.tensorrt.options import Options
from optimize.tensorrt.profiles import Declaration
from serving.errors import BadInput
from serving.repository.model import Model
from serving.repository.part_file import read_part
from serving.repository.plan_file import plans_folder
from serving.repository.read import CARD_FILE


def build_plans(model: Model, version: Path, options: Options, notify: Notify) -> str:
    """Build every variant's plan for the GPU of this machine, or find that it is there.

    Args:
        model: that the part belongs to.
        version: folder of the published part.
        options: of the plans; the precision is the part's.
        notify: told what is done.

    Returns:
        Why Triton cannot serve the plans, which engines run all the same; empty where it can.

    Raises:
        MissingDependency: driver, GPU or TensorRT are missing; after files and shapes were checked.
        ReelmeshError: see :func:`optimize.tensorrt.build.build_plan`.
    """
    part = read_part(version)
    target = plans_folder(version)
    plans = [
        build_plan(
            version / variant.file,
            Declaration(variant.inputs, variant.outputs, variant.sizes or [{}]),
            replace(options, precision=part.precision),
            target,
            notify,
        )
        for variant in part.variants
    ]
    card = target.parent / CARD_FILE
    if not card.is_file():
        replace_text(card, triton.card(model.card, plans[0].made, part.model, part.part))
    if len(plans) > 1:
        return f"{part.part} has {len(plans)} files for different calls, and Triton serves one"
    try:
        triton.write_config(target.parent, plans[0].made)
    except BadInput as error:
        return str(error)
    return ""
