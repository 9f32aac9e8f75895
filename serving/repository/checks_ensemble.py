"""What Triton refuses in ensembles: steps, tensors between them, and what they are joined to; used by checks.

The one invariant: an error here is a refusal of tritonserver; sizes that a model leaves open are compared by nobody
before requests come, so they are no error here either.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelEnsembling, ModelInput, ModelOutput

from serving.repository.checks_tensors import VARIABLE
from serving.repository.derive import served_versions
from serving.repository.findings import Finding
from serving.repository.places import at_config
from serving.repository.read import RawModel

ENSEMBLE: Final = "ensemble"
_STEPS: Final = "ensemble_scheduling.step"
_NEWEST: Final = -1


def is_ensemble(config: ModelConfig) -> bool:
    """Whether Triton takes the model for an ensemble."""
    return bool(config.platform == ENSEMBLE)


def check_ensemble(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    """Everything that the ensemble's own file shows."""
    if not is_ensemble(config):
        if config.HasField("ensemble_scheduling"):
            yield at_config(raw, "ensemble_scheduling", "this model is no ensemble", f'write platform: "{ENSEMBLE}"')
        return
    if config.instance_group:
        yield at_config(raw, "instance_group", "an ensemble has no instances", "set it in the models of its steps")
    if config.model_warmup:
        yield at_config(raw, "model_warmup", "an ensemble is not warmed up", "set it in the models of its steps")
    if not config.ensemble_scheduling.step:
        yield at_config(
            raw, "ensemble_scheduling", "there is no step", "name the first model: step [ { model_name: ..."
        )
        return
    yield from _check_steps(raw, config.ensemble_scheduling.step)
    yield from _check_flow(raw, config)


def _check_steps(raw: RawModel, steps: Sequence[ModelEnsembling.Step]) -> Iterator[Finding]:
    written: set[str] = set()
    for index, step in enumerate(steps):
        field = f"{_STEPS}[{index}]"
        if not step.model_name:
            yield at_config(raw, f"{field}.model_name", "is missing", "name the model of this step")
        for name in ("input_map", "output_map"):
            if not getattr(step, name):
                yield at_config(raw, f"{field}.{name}", "is missing", "join the model's tensors to the ensemble's")
        for tensor in sorted(step.output_map.values()):
            if tensor in written:
                yield at_config(raw, f"{field}.output_map", f"{tensor!r} is written already", "choose another name")
            written.add(tensor)


def _check_flow(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    steps = config.ensemble_scheduling.step
    read = {tensor for step in steps for tensor in step.input_map.values()}
    written = {tensor for step in steps for tensor in step.output_map.values()}
    for index, tensor in enumerate(config.input):
        if tensor.name not in read:
            yield at_config(raw, f"input[{index}]", f"no step reads {tensor.name!r}", "join it to a step, or remove it")
    for index, tensor in enumerate(config.output):
        if tensor.name not in written:
            fix = "put it into a step's output_map, or remove it"
            yield at_config(raw, f"output[{index}]", f"no step writes {tensor.name!r}", fix)
    outputs = {tensor.name for tensor in config.output}
    for index, step in enumerate(steps):
        if idle := sorted({*step.output_map.values()} - read - outputs):
            field, fix = f"{_STEPS}[{index}].output_map", "leave it out of the map, or make it an output"
            yield at_config(raw, field, f"nobody reads {idle[0]!r}", fix)
    ready = {tensor.name for tensor in config.input}
    waiting = dict(enumerate(steps))
    while able := [index for index, step in waiting.items() if ready.issuperset(step.input_map.values())]:
        for index in able:
            ready.update(waiting.pop(index).output_map.values())
    for index, step in waiting.items():
        late = min(set(step.input_map.values()) - ready)
        problem = f"{late!r} is " + ("written only by steps that wait for this one" if late in written else "not there")
        fix = "use an input of the ensemble, or what an earlier step writes"
        yield at_config(raw, f"{_STEPS}[{index}].input_map", problem, fix)


def check_ensembles(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    """What ensembles and the models of their steps show together."""
    for raw in models.values():
        if raw.config is not None and is_ensemble(raw.config):
            for index, step in enumerate(raw.config.ensemble_scheduling.step):
                if step.model_name:
                    yield from _check_step(raw, raw.config, index, models)
    yield from _check_circles(models)


def _check_step(raw: RawModel, config: ModelConfig, index: int, models: Mapping[str, RawModel]) -> Iterator[Finding]:
    step, field = config.ensemble_scheduling.step[index], f"{_STEPS}[{index}]"
    other = models.get(step.model_name)
    if other is None:
        yield at_config(raw, f"{field}.model_name", f"no model {step.model_name!r}", "put it into the repository")
        return
    if other.config is None:
        return  # what is wrong there is told there
    if other.card is not None and other.card.backend != "triton":
        fix = "let Triton serve it: an ensemble's models are in one Triton"
        yield at_config(raw, f"{field}.model_name", f"{step.model_name!r} is served by Ray", fix)
        return
    if step.model_version != _NEWEST and step.model_version not in served_versions(other.config, other.versions):
        problem = f"{step.model_name!r} serves no version {step.model_version}"
        yield at_config(raw, f"{field}.model_version", problem, f"use {_NEWEST} for the newest")
    if not other.config.input or not other.config.output:
        return  # Triton completes it from the model's file
    yield from _check_joints(raw, config, index, other.config)
    if 0 < other.config.max_batch_size < config.max_batch_size:
        problem = f"is over the {other.config.max_batch_size} of {step.model_name!r}"
        yield at_config(raw, "max_batch_size", problem, f"use at most {other.config.max_batch_size}")


@dataclass(frozen=True, slots=True)
class _Joint:
    """One pair of a step's map: a tensor of the model and the ensemble's tensor of the same data."""

    field: str
    tensor: ModelInput | ModelOutput
    batched: bool


def _check_joints(raw: RawModel, config: ModelConfig, index: int, other: ModelConfig) -> Iterator[Finding]:
    step = config.ensemble_scheduling.step[index]
    own = {tensor.name: tensor for tensor in [*config.output, *config.input]}
    for kind, tensors in (("input", other.input), ("output", other.output)):
        field, joined = f"{_STEPS}[{index}].{kind}_map", getattr(step, f"{kind}_map")
        known = {tensor.name: tensor for tensor in tensors}
        for name in sorted(joined):
            if name not in known:
                problem = f"{step.model_name!r} has no {kind} {name!r}"
                yield at_config(raw, field, problem, f"use one of {', '.join(known)}")
            elif joined[name] in own:
                joint = _Joint(field, known[name], other.max_batch_size > 0)
                yield from _check_same(raw, joint, own[joined[name]], batched=config.max_batch_size > 0)
        for name, tensor in known.items():
            if kind == "input" and name not in joined and not tensor.optional:
                problem = f"the input {name!r} of {step.model_name!r} is not joined to anything"
                yield at_config(raw, field, problem, f'add input_map {{ key: "{name}" value: ... }}')


def _check_same(raw: RawModel, joint: _Joint, own: ModelInput | ModelOutput, *, batched: bool) -> Iterator[Finding]:
    there = joint.tensor
    if own.data_type != there.data_type:
        problem = f"{own.name!r} is {DataType.Name(own.data_type)}, but {DataType.Name(there.data_type)} in the model"
        yield at_config(raw, joint.field, problem, "declare it as the model does")
    elif not _fit(own.dims, there.dims) and not _fit(_whole(own.dims, batched), _whole(there.dims, joint.batched)):
        problem = f"{own.name!r} has dims {list(own.dims)}, but {list(there.dims)} in the model"
        yield at_config(raw, joint.field, problem, "declare it as the model does")


def _whole(dims: Sequence[int], batched: bool) -> list[int]:
    return [VARIABLE, *dims] if batched else list(dims)


def _fit(some: Sequence[int], others: Sequence[int]) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(VARIABLE in pair or pair[0] == pair[1] for pair in pairs)


def _check_circles(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    """Ensembles that come back to themselves."""
    for name in sorted(models):
        if way := _way_back(name, models):
            fix = "take one of them out of the circle"
            yield at_config(models[name], _STEPS, f"leads back to itself: {' -> '.join([*way, name])}", fix)


def _way_back(start: str, models: Mapping[str, RawModel]) -> list[str]:
    """The models on the way from an ensemble back to it; empty where there is none."""
    seen: set[str] = set()
    ways = [[start]]
    while ways:
        way = ways.pop()
        raw = models.get(way[-1])
        if raw is None or raw.config is None or not is_ensemble(raw.config):
            continue
        for step in raw.config.ensemble_scheduling.step:
            if step.model_name == start:
                return way
            if step.model_name not in seen:
                seen.add(step.model_name)
                ways.append([*way, step.model_name])
    return []
