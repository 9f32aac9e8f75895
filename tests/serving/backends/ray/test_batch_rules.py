"""The queue and batch fields of config.pbtxt."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.batch_rules import BatchRules, QueuePolicy, rules_of
from serving.errors import BadInput
from serving.protocol.oip import InferRequest, Tensor


def rules(text: str, **given: int) -> BatchRules:
    return rules_of(text_format.Parse('name: "m" max_batch_size: 8 ' + text, ModelConfig()), **given)


def test_every_field_that_triton_reads_is_read():
    read = rules("""
        instance_group [ { count: 2 }, { count: 1 } ]
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 500 preserve_ordering: true
          priority_levels: 3 default_priority_level: 2
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 2000 max_queue_size: 5 }
          priority_queue_policy { key: 1 value { allow_timeout_override: true max_queue_size: 7 } }
        }""")
    assert (read.most, read.preferred, read.delay_s, read.instances) == (8, (4, 8), 0.0005, 3)
    assert read.joins
    assert read.keep_order
    assert read.policy_of(2) == QueuePolicy(size=5, timeout_s=0.002, rejects=False)
    assert read.policy_of(1) == QueuePolicy(size=7, override=True)
    assert [read.level(asked) for asked in (0, 1, 3, 4)] == [2, 1, 3, 2]


def test_without_dynamic_batching_requests_run_alone_and_the_queue_is_bounded():
    read = rules("", queue_size=9)
    assert not read.joins
    assert (read.instances, read.policy.size) == (1, 9)
    assert rules("", instances=4).instances == 4


@pytest.mark.parametrize(
    ("policy", "asked", "limit"),
    [
        (QueuePolicy(timeout_s=2), 1, 2),
        (QueuePolicy(timeout_s=2, override=True), 1, 1),
        (QueuePolicy(timeout_s=2, override=True), 3, 2),
        (QueuePolicy(override=True), 3, 3),
        (QueuePolicy(override=True), None, 0),
    ],
    ids=["no-override", "shorter", "longer", "no-default", "nothing-asked"],
)
def test_a_request_may_only_shorten_its_time_in_the_queue(policy, asked, limit):
    assert policy.limit_s(asked) == limit


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("preferred_batch_size: [ 9 ]", "preferred_batch_size"),
        ("preferred_batch_size: [ 0 ]", "preferred_batch_size"),
        ("priority_levels: 2", "default_priority_level"),
        ("priority_levels: 2 default_priority_level: 3", "default_priority_level"),
        ("priority_queue_policy { key: 1 value {} }", "priority_queue_policy"),
    ],
)
def test_what_triton_would_not_load_is_refused(text, field):
    with pytest.raises(BadInput, match=field):
        rules(f"dynamic_batching {{ {text} }}")


def request(**arrays: tuple[int, ...]) -> InferRequest:
    return InferRequest(
        "m", inputs=tuple(Tensor(name, "UINT8", shape, bytes(shape[0] * shape[1])) for name, shape in arrays.items())
    )


def test_requests_share_a_bucket_when_all_but_their_batch_sizes_agree():
    read = rules('input [ { name: "R" allow_ragged_batch: true } ] dynamic_batching {}')
    assert read.bucket(request(A=(1, 3))) == read.bucket(request(A=(2, 3)))
    assert read.bucket(request(A=(1, 3))) != read.bucket(request(A=(1, 4)))
    assert read.bucket(request(A=(1, 3))) != read.bucket(request(B=(1, 3)))
    assert read.bucket(request(A=(1, 3), B=(1, 2))) == read.bucket(request(B=(1, 2), A=(1, 3)))
    assert read.bucket(request(R=(1, 3))) == read.bucket(request(R=(1, 4)))
