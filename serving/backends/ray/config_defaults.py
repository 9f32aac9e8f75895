"""What Triton fills into a model's configuration where its config.pbtxt is silent; used by Ray replicas.

The one invariant: a copy is filled and nothing that was set is changed, so what a replica does stays the same.
"""

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.repository.derive import DEFAULT_FILES


def with_defaults(config: ModelConfig, engine: str = "") -> ModelConfig:
    """A copy with versions, optimization, instances and file as Triton 2.51 fills them in.

    Args:
        config: as the engine completed it.
        engine: names the file that a version folder holds; "" where there is none.
    """
    filled = ModelConfig()
    filled.CopyFrom(config)
    if filled.version_policy.WhichOneof("policy_choice") is None:
        filled.version_policy.latest.num_versions = 1
    for memory in ("input_pinned_memory", "output_pinned_memory"):
        if not filled.optimization.HasField(memory):
            getattr(filled.optimization, memory).enable = True
    _fill_instances(filled)
    filled.default_model_filename = filled.default_model_filename or DEFAULT_FILES.get(engine, "")
    return filled


def _fill_instances(config: ModelConfig) -> None:
    """Triton calls a group that it adds by the model's name, and those without a name by the model's and their place.

    Engines run on the CPU unless a group says KIND_GPU.
    """
    if not config.instance_group:
        config.instance_group.add(name=config.name)
    for place, group in enumerate(config.instance_group):
        group.name = group.name or f"{config.name}_{place}"
        group.count = max(1, group.count)
        if group.kind == ModelInstanceGroup.KIND_AUTO:
            group.kind = ModelInstanceGroup.KIND_CPU
