"""What Triton loads and people regret later: warnings of lint about one model or several; used by checks.

The one invariant: everything here is a warning, and each says what will happen and which field prevents it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from serving.repository.checks_ensemble import is_ensemble
from serving.repository.findings import Finding
from serving.repository.model import TENSOR_TASK, ModelCard
from serving.repository.places import at_card, at_config
from serving.repository.read import RawModel

SLOW_LOAD_S: Final = 10.0
"""From here on a first request should not be the one that warms a model up."""
SLOW_RUN_S: Final = 1.0
"""From here on a queue without a bound holds minutes of work soon."""
LONG_DELAY_US: Final = 1_000_000
"""Longer than most models take; nobody should wait that long for company without knowing it."""
_GENERATING: Final = frozenset({"image", "image_to_video", "video", "music"})
"""Tasks whose results differ from run to run unless a seed is given."""
_SAMPLING: Final = frozenset({"prompt", "temperature", "top_p", "top_k", "guidance_scale", "negative_prompt"})
"""Names of inputs that only generators have."""
_US: Final = 1_000_000


def advise(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    """Warnings about one model."""
    yield from _about_queues(raw, config, card)
    yield from _about_warm_up(raw, config, card)
    yield from _about_gpus(raw, config, card)
    yield from _about_cache(raw, config, card)


def advise_together(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    """Warnings about models that are joined: decoupled producers in ensembles."""
    for raw in models.values():
        if raw.config is None or not is_ensemble(raw.config) or _has_bound(raw.config):
            continue
        steps = raw.config.ensemble_scheduling.step
        for index, step in enumerate(steps):
            other = models.get(step.model_name)
            feeds = set(step.output_map.values()) & {name for each in steps for name in each.input_map.values()}
            if other is None or other.config is None or not feeds:
                continue
            if other.config.model_transaction_policy.decoupled:
                problem = f"{step.model_name!r} is decoupled: its answers pile up before slower steps, without a bound"
                fix = "set ensemble_scheduling.max_inflight_requests where Triton knows it, or bound its answers"
                field = f"ensemble_scheduling.step[{index}]"
                yield at_config(raw, field, problem, fix, warning=True)


def check_memory(models: Mapping[str, RawModel], gpu_mib: float) -> Iterator[Finding]:
    """Warnings about models whose declared memory does not fit their share of a card of ``gpu_mib`` MiB."""
    for raw in models.values():
        card = raw.card
        if card is None or card.memory is None or not card.share.gpu:
            continue
        room = card.share.gpu * gpu_mib
        if card.memory.peak_mib > room:
            problem = f"{card.memory.peak_mib:g} MiB, but share.gpu {card.share.gpu:g} of the card is {room:g} MiB"
            fix = f"set share.gpu: {card.memory.peak_mib / gpu_mib:.2g} or more, or use a larger card"
            yield at_card(raw, "memory.peak_mib", problem, fix, warning=True)


def _has_bound(config: ModelConfig) -> bool:
    # Older messages of Triton do not know the field.
    return bool(getattr(config.ensemble_scheduling, "max_inflight_requests", 0))


def _about_queues(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    if not config.HasField("dynamic_batching"):
        return
    batching = config.dynamic_batching
    if not batching.default_queue_policy.max_queue_size:
        slow = (card.load_time_s or 0) >= SLOW_LOAD_S or (card.run_time_s or 0) >= SLOW_RUN_S
        problem = "the queue has no bound" + (", and the model is slow" if slow else "") + ": requests wait for ever"
        fix = "set default_queue_policy { max_queue_size: N }"
        yield at_config(raw, "dynamic_batching.default_queue_policy", problem, fix, warning=True)
    delay_us = batching.max_queue_delay_microseconds
    own_us = card.run_time_s * _US if card.run_time_s else LONG_DELAY_US
    if delay_us > own_us:
        what = "the model itself takes" if card.run_time_s else "most models take"
        problem = f"{delay_us} is longer than {what} ({own_us:g})"
        fix = "use a fraction of the model's own time"
        yield at_config(raw, "dynamic_batching.max_queue_delay_microseconds", problem, fix, warning=True)


def _about_warm_up(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    # Engines of typed tasks have no samples to be warmed up with.
    samples = card.backend == "triton" or card.task == TENSOR_TASK
    if (card.load_time_s or 0) < SLOW_LOAD_S or is_ensemble(config) or not samples or config.model_warmup:
        return
    problem = f"nothing warms up a model that loads for {card.load_time_s:g} s: its first request pays"
    yield at_config(raw, "model_warmup", problem, "add a sample of every input", warning=True)


def _about_gpus(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    for index, group in enumerate(config.instance_group):
        if group.kind != ModelInstanceGroup.KIND_GPU:
            continue
        field = f"instance_group[{index}]"
        if card.backend == "triton" and not card.share.gpu:
            fix = "set share: {gpu: ...} in model.yaml, or KIND_CPU here"
            problem = "KIND_GPU, while the model leases no GPU: Triton gets none and refuses the model"
            yield at_config(raw, f"{field}.kind", problem, fix, warning=True)
        elif not group.gpus and card.share.gpu < 1:
            problem = "KIND_GPU without gpus puts instances on every GPU, and this model shares one"
            yield at_config(raw, f"{field}.gpus", problem, "write gpus: [ 0 ]", warning=True)


def _about_cache(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    if not config.response_cache.enable:
        return
    names = {tensor.name.lower() for tensor in config.input}
    generates = card.task in _GENERATING or (card.task == TENSOR_TASK and bool(names & _SAMPLING))
    if generates and not any("seed" in name for name in names):
        problem = "a generator without a seed: whoever asks again gets the same answer for ever"
        yield at_config(raw, "response_cache", problem, "add an input SEED, or remove response_cache", warning=True)
