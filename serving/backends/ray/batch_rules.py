"""What config.pbtxt says of a model's queue and batches, in the scheduler's units; read when a model is added.

The one invariant: the same fields mean here what they mean to Triton, so a model keeps its queue when it moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput
from serving.protocol.oip import InferRequest

QUEUE_SIZE: Final = 1024
"""Requests that wait for a model whose config.pbtxt has no ``max_queue_size``."""
_MICROSECONDS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How one priority level waits.

    Args:
        size: most requests waiting; one more is refused.
        timeout_s: how long a request waits; 0 means without end.
        rejects: what happens then: it is refused, or else served after all that are in time.
        override: whether a request's own ``timeout`` takes the place of ``timeout_s`` where it is shorter.
    """

    size: int = QUEUE_SIZE
    timeout_s: float = 0.0
    rejects: bool = True
    override: bool = False

    def limit_s(self, asked_s: float | None) -> float:
        """How long one request may wait; 0 means without end."""
        if not (self.override and asked_s):
            return self.timeout_s
        return min(self.timeout_s or asked_s, asked_s)


@dataclass(frozen=True, slots=True)
class BatchRules:
    """How requests of one model wait and join.

    Args:
        joins: whether requests share a batch at all.
        most: rows of a batch, at most.
        preferred: rows worth sending at once, ascending.
        delay_s: how long the oldest request waits for others to join it.
        keep_order: whether responses leave in the order of their requests.
        instances: batches in flight, at most.
        levels: priorities, 1 (first) to this; 0 means that there are none.
        default_level: that of a request without one.
        policy: of levels that ``policies`` does not name.
        policies: by level.
        ragged: inputs whose shapes may differ within a batch.
        shapes: inputs whose values are shapes, which must be equal within a batch.
    """

    joins: bool = False
    most: int = 1
    preferred: tuple[int, ...] = ()
    delay_s: float = 0.0
    keep_order: bool = False
    instances: int = 1
    levels: int = 0
    default_level: int = 0
    policy: QueuePolicy = QueuePolicy()
    policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    ragged: frozenset[str] = frozenset()
    shapes: frozenset[str] = frozenset()

    def level(self, asked: int) -> int:
        """The level of a request that asks for a priority; 0 and unknown ones get the default."""
        return asked if 1 <= asked <= self.levels else self.default_level

    def policy_of(self, level: int) -> QueuePolicy:
        """How a level waits."""
        return self.policies.get(level, self.policy)

    def bucket(self, request: InferRequest) -> tuple[object, ...]:
        """What two requests must have in common to share a batch: inputs, and their shapes but for the batch."""
        if not self.joins:
            return ()
        return tuple(
            sorted(
                (
                    tensor.name,
                    () if tensor.name in self.ragged else tensor.shape[1:],
                    bytes(tensor.data) if tensor.name in self.shapes else b"",
                )
                for tensor in request.inputs
            )
        )


def rules_of(config: pb.ModelConfig, instances: int = 0, queue_size: int = QUEUE_SIZE) -> BatchRules:
    """Read a configuration.

    Args:
        config: as parsed.
        instances: batches in flight; 0 means what ``instance_group`` says.
        queue_size: bound of a queue for which the configuration has none.

    Raises:
        BadInput: what Triton would not load either.
    """
    instances = instances or max(1, sum(max(1, group.count) for group in config.instance_group))
    policy = QueuePolicy(size=queue_size)
    if config.HasField("sequence_batching"):
        return _sequence_rules(config, policy)
    if not config.HasField("dynamic_batching"):
        return BatchRules(most=max(1, config.max_batch_size), instances=instances, policy=policy)
    batching = config.dynamic_batching
    _check(config, batching)
    return BatchRules(
        joins=config.max_batch_size > 1,
        most=max(1, config.max_batch_size),
        preferred=tuple(sorted(batching.preferred_batch_size)),
        delay_s=batching.max_queue_delay_microseconds * _MICROSECONDS,
        keep_order=batching.preserve_ordering,
        instances=instances,
        levels=batching.priority_levels,
        default_level=batching.default_priority_level,
        policy=_policy(batching.default_queue_policy, queue_size),
        policies={level: _policy(each, queue_size) for level, each in batching.priority_queue_policy.items()},
        ragged=frozenset(tensor.name for tensor in config.input if tensor.allow_ragged_batch),
        shapes=frozenset(tensor.name for tensor in config.input if tensor.is_shape_tensor),
    )


def _sequence_rules(config: pb.ModelConfig, policy: QueuePolicy) -> BatchRules:
    """One batch at a time, so that a sequence always meets the same instance, which may hold its state."""
    batching = config.sequence_batching
    strategy = batching.oldest if batching.HasField("oldest") else batching.direct
    return BatchRules(
        joins=config.max_batch_size > 1,
        most=max(1, config.max_batch_size),
        preferred=tuple(sorted(batching.oldest.preferred_batch_size)),
        delay_s=strategy.max_queue_delay_microseconds * _MICROSECONDS,
        policy=policy,
    )


def _check(config: pb.ModelConfig, batching: pb.ModelDynamicBatching) -> None:
    if any(not 0 < size <= config.max_batch_size for size in batching.preferred_batch_size):
        raise BadInput(
            f"dynamic batching preferred size must be positive and <= max batch size {config.max_batch_size}",
            field=f"{config.name}/config.pbtxt:dynamic_batching.preferred_batch_size",
        )
    levels = batching.priority_levels
    if levels and not 1 <= batching.default_priority_level <= levels:
        raise BadInput(
            f"default priority level must be specified and within 1 to {levels}",
            field=f"{config.name}/config.pbtxt:dynamic_batching.default_priority_level",
        )
    if any(not 1 <= level <= levels for level in batching.priority_queue_policy):
        raise BadInput(
            f"priority queue policy must be specified for levels within 1 to {levels}",
            field=f"{config.name}/config.pbtxt:dynamic_batching.priority_queue_policy",
        )


def _policy(policy: pb.ModelQueuePolicy, queue_size: int) -> QueuePolicy:
    return QueuePolicy(
        size=policy.max_queue_size or queue_size,
        timeout_s=policy.default_timeout_microseconds * _MICROSECONDS,
        rejects=policy.timeout_action == pb.ModelQueuePolicy.REJECT,
        override=policy.allow_timeout_override,
    )
