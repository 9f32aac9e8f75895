"""Documents of several replicas as one."""

from serving.gateway.oip_statistics import merge_metadata, merge_statistics


def entry(count, last, batches=(), memory=()):
    return {
        "model_stats": [
            {
                "name": "m",
                "version": "1",
                "last_inference": last,
                "inference_count": count,
                "inference_stats": {"success": {"count": count, "ns": 10 * count}},
                "response_stats": {},
                "batch_stats": [{"batch_size": size, "compute_infer": {"count": n, "ns": n}} for size, n in batches],
                "memory_usage": [{"type": "CPU", "id": 0, "byte_size": size} for size in memory],
            }
        ]
    }


def test_counts_add_up_and_the_last_inference_is_the_latest():
    merged = merge_statistics(
        [entry(2, 50, [(1, 3), (8, 1)], [5]), {}, entry(3, 40, [(8, 2), (10, 1)], [7]), entry(0, 0)]
    )
    assert merged == entry(5, 50, [(1, 3), (8, 3), (10, 1)], [12])


def test_merging_leaves_the_documents_as_they_are():
    one = entry(1, 1, [(1, 1)])
    merge_statistics([one, one])
    assert one == entry(1, 1, [(1, 1)])


def test_models_and_versions_are_told_apart_and_sorted_by_number():
    def of(name, version):
        return {"model_stats": [{"name": name, "version": version, "inference_count": 1}]}

    merged = merge_statistics([of("b", "10"), of("b", "9"), of("a", "1"), of("b", "9")])["model_stats"]
    assert [(e["name"], e["version"], e["inference_count"]) for e in merged] == [
        ("a", "1", 1), ("b", "9", 2), ("b", "10", 1),
    ]  # fmt: skip


def test_fields_that_only_one_replica_writes_are_kept():
    merged = merge_statistics([{"model_stats": [{"name": "m"}]}, {"model_stats": [{"name": "m", "new": {"n": 1}}]}])
    assert merged == {"model_stats": [{"name": "m", "new": {"n": 1}}]}


def test_metadata_name_all_versions():
    merged = merge_metadata([{"name": "m", "versions": ["10", "2"]}, {"name": "m", "versions": ["1"]}])
    assert merged == {"name": "m", "versions": ["1", "2", "10"]}
