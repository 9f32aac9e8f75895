"""What Triton refuses in instances, versions and warm-up of a config.pbtxt; used by checks.

The one invariant: an error here is a refusal of tritonserver on any machine; what depends on its GPUs is none.
"""

from collections.abc import Iterator

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup, ModelWarmup

from serving.repository.checks_tensors import VARIABLE
from serving.repository.derive import triton_backend
from serving.repository.findings import Finding
from serving.repository.places import at_config
from serving.repository.read import RawModel


def check_instances(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    """Instance groups, the version policy, and samples for warm-up."""
    for index, group in enumerate(config.instance_group):
        field, kind = f"instance_group[{index}]", ModelInstanceGroup.Kind.Name(group.kind)
        if group.gpus and group.kind in (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_MODEL):
            yield at_config(raw, f"{field}.gpus", f"{kind} takes no GPUs", "remove it, or use KIND_GPU")
        if group.profile and triton_backend(config) != "tensorrt":
            yield at_config(raw, f"{field}.profile", "only TensorRT models have profiles", "remove it")
        if any(gpu < 0 for gpu in group.gpus):
            yield at_config(raw, f"{field}.gpus", f"{min(group.gpus)} is no GPU", "count them from 0")
        if group.count < 0:
            fix = "use a number from 1 up"
            yield at_config(raw, f"{field}.count", f"{group.count} is no number of instances", fix, warning=True)
    yield from _check_versions(raw, config)
    if not config.HasField("sequence_batching"):  # its samples may fill control tensors too
        for index, sample in enumerate(config.model_warmup):
            yield from _check_sample(raw, config, f"model_warmup[{index}]", sample)


def _check_versions(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    policy = config.version_policy
    if policy.HasField("latest") and not policy.latest.num_versions:
        yield at_config(raw, "version_policy.latest", "keeps no version", "set num_versions: 1, or more")
    if not policy.HasField("specific") or not raw.versions:
        return
    wanted = list(policy.specific.versions)
    absent = [version for version in wanted if version not in raw.versions]
    there = ", ".join(map(str, raw.versions))
    if len(absent) == len(wanted):
        problem = f"none of {wanted} is there" if wanted else "names no version"
        yield at_config(raw, "version_policy.specific", problem, f"name some of {there}")
    elif absent:
        problem = f"there is no version {absent[0]}"
        yield at_config(raw, "version_policy.specific", problem, f"name some of {there}", warning=True)


def _check_sample(raw: RawModel, config: ModelConfig, field: str, sample: ModelWarmup) -> Iterator[Finding]:
    if config.max_batch_size and sample.batch_size > config.max_batch_size:
        fix = f"use at most {config.max_batch_size}"
        yield at_config(raw, f"{field}.batch_size", f"{sample.batch_size} is over max_batch_size", fix)
    declared = {tensor.name: tensor for tensor in config.input}
    missing = [name for name, tensor in declared.items() if not tensor.optional and name not in sample.inputs]
    if missing:
        yield at_config(raw, field, f"the input {missing[0]!r} is missing", "give every input that is not optional")
    for index, name in enumerate(sorted(sample.inputs)):
        given, where = sample.inputs[name], f"{field}.inputs[{index}]"
        if name not in declared and declared:
            yield at_config(raw, where, f"no input {name!r}", f"use one of {', '.join(declared)}", warning=True)
            continue
        yield from _check_data(raw, where, given)
        if name in declared:
            expected = declared[name]
            if given.data_type != expected.data_type:
                problem = f"{name!r} is {DataType.Name(given.data_type)} here"
                yield at_config(raw, where, problem, f"use {DataType.Name(expected.data_type)}, as declared")
            if not _fits(list(given.dims), list(expected.dims)):
                problem = f"{name!r} has dims {list(given.dims)} here"
                yield at_config(raw, where, problem, f"use dims that fit {list(expected.dims)}")


def _check_data(raw: RawModel, where: str, given: ModelWarmup.Input) -> Iterator[Finding]:
    kind = given.WhichOneof("input_data_type")
    if kind is None:
        yield at_config(raw, where, "has no data", "set zero_data: true, random_data: true or input_data_file")
    elif kind == "input_data_file" and not (raw.folder / "warmup" / given.input_data_file).is_file():
        problem = f"there is no file warmup/{given.input_data_file}"
        yield at_config(raw, where, problem, "put it there, or set zero_data: true")
    if any(size < 0 for size in given.dims):
        yield at_config(raw, where, f"dims {list(given.dims)} leave a size open", "give every size")


def _fits(given: list[int], expected: list[int]) -> bool:
    pairs = zip(given, expected, strict=False)
    return len(given) == len(expected) and all(VARIABLE in pair or pair[0] == pair[1] for pair in pairs)
