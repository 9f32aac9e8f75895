"""TensorRT plans of a published part, beside it as ``<model>_<part>_trt``, version by version; called by the command.

The one invariant: a plan's version is that of the part that it was built of.
"""

from pathlib import Path

from optimize.publish import replace_text
from optimize.tensorrt import triton
from optimize.tensorrt.build import Plan, build_plan
from optimize.tensorrt.builder import Notify
from optimize.tensorrt.options import Options
from optimize.tensorrt.profiles import Declaration
from serving.repository.model import Model
from serving.repository.part_file import read_part
from serving.repository.plan_file import plans_folder


def build_plans(model: Model, version: Path, notify: Notify) -> list[Plan]:
    """Build every variant's plan for the GPU of this machine, or find that it is there.

    Args:
        model: that the part belongs to.
        version: folder of the published part.
        notify: told what is done.

    Raises:
        MissingDependency: driver, GPU or TensorRT are missing; after files and shapes were checked.
        ReelmeshError: see :func:`optimize.tensorrt.build.build_plan`.
    """
    part = read_part(version)
    target = plans_folder(version)
    options = Options(precision=part.precision)
    plans = [
        build_plan(
            version / variant.file,
            Declaration(variant.inputs, variant.outputs, variant.sizes or [{}]),
            options,
            target,
            notify,
        )
        for variant in part.variants
    ]
    triton.write_config(target.parent, plans[0].made)
    replace_text(target.parent / "model.yaml", triton.card(model.card, plans[0].made, part.model, part.part))
    return plans
