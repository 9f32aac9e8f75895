import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from serving.exposition import UNREADABLE, Exposition, merge_expositions

TRITON = """\
# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="log_mel",version="1"} 3.000000
# HELP nv_cache_num_hits_per_model Number of cache hits per model
# TYPE nv_cache_num_hits_per_model counter
"""

HAPROXY = """\
# HELP haproxy_server_status Current status of the service, per state label value.
# TYPE haproxy_server_status gauge
haproxy_server_status{proxy="models",server="s1",state="UP"} 1
# HELP haproxy_server_sessions_total Total number of sessions.
# TYPE haproxy_server_sessions_total counter
haproxy_server_sessions_total{proxy="models",server="s1"} 12
"""


def ours(requests: int) -> str:
    registry = CollectorRegistry()
    Counter("reelmesh_requests", "Requests.", ["model"], registry=registry).labels("anna").inc(requests)
    Histogram("reelmesh_seconds", "Time.", buckets=(0.1, 1), registry=registry).observe(0.5)
    Gauge("reelmesh_queue", 'A "depth"\nover two lines \\ here.', registry=registry).set(2)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[str, float]:
    """Series as a scraper sees them, each once; fails where a series stands twice."""
    found = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    assert len({name for name, _ in found}) == len(found)
    list(text_string_to_metric_families(text))
    return {name: float(value) for name, value in found}


def test_replicas_are_told_apart_by_their_label() -> None:
    merged = samples(merge_expositions([Exposition(ours(1), {"replica": "a"}), Exposition(ours(2), {"replica": "b"})]))
    assert merged['reelmesh_requests_total{model="anna",replica="a"}'] == 1
    assert merged['reelmesh_requests_total{model="anna",replica="b"}'] == 2
    assert merged['reelmesh_seconds_bucket{le="1.0",replica="b"}'] == 1


def test_each_family_stands_once() -> None:
    text = merge_expositions([Exposition(ours(1), {"replica": "a"}), Exposition(ours(2), {"replica": "b"})])
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert "# TYPE reelmesh_requests_total counter" in types
    assert "# TYPE reelmesh_seconds histogram" in types


def test_counters_of_others_keep_their_names() -> None:
    text = merge_expositions([Exposition(TRITON, {"replica": "t"}), Exposition(HAPROXY, {})])
    merged = samples(text)
    assert merged['nv_inference_count{model="log_mel",replica="t",version="1"}'] == 3
    assert merged['haproxy_server_sessions_total{proxy="models",server="s1"}'] == 12
    assert "# TYPE nv_inference_count counter" in text
    assert "# TYPE haproxy_server_sessions_total counter" in text


def test_of_two_equal_series_the_first_is_kept() -> None:
    merged = samples(merge_expositions([Exposition(ours(1), {}), Exposition(ours(2), {})]))
    assert merged['reelmesh_requests_total{model="anna"}'] == 1


def test_help_and_labels_are_escaped() -> None:
    text = merge_expositions([Exposition(ours(1), {"replica": 'a"b\\c\nd'})])
    assert r'# HELP reelmesh_queue A "depth"\nover two lines \\ here.' in text
    assert r'replica="a\"b\\c\nd"' in text
    samples(text)


@pytest.mark.parametrize("broken", ["x{ 3", "a b c d", "# TYPE x", 'x{a="1', "x 1e", "x" * (9 << 20)])
def test_a_part_that_cannot_be_read_is_named_and_spoils_nothing(broken: str) -> None:
    merged = samples(merge_expositions([Exposition(broken, {"replica": "bad"}), Exposition(ours(1), {})]))
    assert merged[f'{UNREADABLE}{{replica="bad"}}'] == 1
    assert merged['reelmesh_requests_total{model="anna"}'] == 1


def test_nothing_merges_to_nothing() -> None:
    assert merge_expositions([]) == ""
    assert merge_expositions([Exposition("", {})]) == ""


def test_merging_again_changes_nothing() -> None:
    once = merge_expositions([Exposition(ours(1), {"replica": "a"}), Exposition(TRITON, {}), Exposition(HAPROXY, {})])
    assert merge_expositions([Exposition(once, {})]) == once


@given(st.text(max_size=300), st.dictionaries(st.sampled_from(["replica", "node"]), st.text(max_size=20)))
def test_whatever_a_part_holds_the_result_can_be_read(text: str, labels: dict[str, str]) -> None:
    list(text_string_to_metric_families(merge_expositions([Exposition(text, labels)])))
