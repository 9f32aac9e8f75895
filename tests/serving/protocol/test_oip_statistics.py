"""What is counted, and how it is shown."""

from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb

from serving.protocol.oip_statistics import ModelStatistics, Times


def test_an_entry_has_the_keys_of_triton_before_anything_was_asked():
    assert list(ModelStatistics().document("m", "1")) == [
        "name", "version", "last_inference", "inference_count", "execution_count", "inference_stats",
        "response_stats", "batch_stats", "memory_usage",
    ]  # fmt: skip


def test_requests_batches_and_responses_are_counted_apart():
    counted = ModelStatistics()
    for _ in range(3):
        counted.succeeded(2, 0.5, Times(queue_s=0.1, infer_s=0.3))
    counted.failed(0.25)
    counted.batch(6, Times(infer_s=0.3))
    counted.response(0, 0.1, "success")
    counted.response(1, 0.1, "empty")
    message = ParseDict({"model_stats": [counted.document("m", "1")]}, pb.ModelStatisticsResponse()).model_stats[0]
    assert (message.inference_count, message.execution_count) == (6, 1)
    assert message.inference_stats.success.count == message.inference_stats.compute_infer.count == 3
    assert message.inference_stats.queue.ns == 300_000_000
    assert message.inference_stats.fail.ns == 250_000_000
    assert message.inference_stats.cache_hit.count == 0
    assert [(stats.batch_size, stats.compute_infer.count) for stats in message.batch_stats] == [(6, 1)]
    assert message.response_stats["1"].empty_response.count == 1
    assert message.last_inference > 0
