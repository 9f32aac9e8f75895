"""What loads and is regretted later is a warning, and no more."""

from pathlib import Path

import pytest

from serving.repository.lint import lint

CARD = """\
description: A model
task: tensor
backend: triton
engine: tensor
license: {name: MIT, commercial_use: true}
source: {uri: "file:."}
"""
TENSORS = """\
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "prompt" data_type: TYPE_STRING dims: [1] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [2] } ]
"""
BOUND = "default_queue_policy { max_queue_size: 9 }"
MEMORY = "share: {gpu: 0.25}\nmemory: {weights_mib: 1000, peak_mib: 9000, measured_on: L4}\n"


def warnings(repository: Path, **options: float) -> list[str]:
    found = lint([repository], **options)
    assert [each for each in found if each.severity == "error"] == []
    return [each.render(repository) for each in found]


@pytest.mark.parametrize(
    ("config", "card", "expected"),
    [
        ("dynamic_batching { }", "", "config.pbtxt:5:dynamic_batching.default_queue_policy: the queue has no bound"),
        ("dynamic_batching { }", "run_time_s: 3", "the queue has no bound, and the model is slow"),
        (
            f"dynamic_batching {{ {BOUND} max_queue_delay_microseconds: 9000 }}",
            "run_time_s: 0.005",
            "9000 is longer than",
        ),
        (f"dynamic_batching {{ {BOUND} max_queue_delay_microseconds: 2000000 }}", "", "2000000 is longer than most"),
        ("", "load_time_s: 30", "model_warmup: nothing warms up a model that loads for 30 s"),
        ("instance_group [ { kind: KIND_GPU } ]", "share: {gpu: 0.5}", "instance_group[0].gpus: KIND_GPU without gpus"),
        (
            "instance_group [ { kind: KIND_GPU } ]",
            "",
            "instance_group[0].kind: KIND_GPU, while the model leases no GPU",
        ),
        ("response_cache { enable: true }", "", "response_cache: a generator without a seed"),
    ],
    ids=["no bound", "slow", "delay", "long delay", "warm-up", "shared GPU", "no GPU", "cache"],
)
def test_what_is_regretted_later_is_said(repository: Path, triton_model, config: str, card: str, expected: str) -> None:
    triton_model("m", config=TENSORS + config, card=CARD + card)
    (found,) = warnings(repository)
    assert expected in found


@pytest.mark.parametrize(
    ("config", "card"),
    [
        (f"dynamic_batching {{ {BOUND} max_queue_delay_microseconds: 100 }}", "run_time_s: 0.005"),
        ("instance_group [ { kind: KIND_GPU gpus: [ 0 ] } ]", "share: {gpu: 0.5}"),
        ("instance_group [ { kind: KIND_GPU } ]", "share: {gpu: 1}"),
        ('input [ { name: "SEED" data_type: TYPE_INT64 dims: [1] } ] response_cache { enable: true }', ""),
        ("", "load_time_s: 3"),
        (
            'model_warmup [ { name: "w" batch_size: 1 inputs { key: "prompt" value '
            "{ data_type: TYPE_STRING dims: [1] zero_data: true } } } ]",
            "load_time_s: 30",
        ),
    ],
    ids=["bounded", "named GPU", "whole GPU", "seed", "quick", "warmed up"],
)
def test_what_is_well_is_not_mentioned(repository: Path, triton_model, config: str, card: str) -> None:
    triton_model("m", config=TENSORS + config, card=CARD + card)
    assert warnings(repository) == []


def test_a_ray_replica_warms_tensor_models_up_with_the_samples_of_config_pbtxt(repository: Path, triton_model) -> None:
    card = CARD.replace("backend: triton", "backend: ray").replace("engine: tensor", "engine: onnxruntime")
    triton_model("m", config=TENSORS, card=card + "load_time_s: 30")
    (found,) = warnings(repository)
    assert "config.pbtxt" in found
    assert "model_warmup: nothing warms up a model that loads for 30 s" in found


def test_engines_of_typed_tasks_are_not_advised_to_warm_up(repository: Path, triton_model) -> None:
    card = CARD.replace("backend: triton", "backend: ray").replace("task: tensor", "task: speech")
    triton_model("m", config='backend: "ray"', card=card.replace("engine: tensor", "engine: x") + "load_time_s: 30")
    assert [each for each in lint([repository]) if "warm" in each.problem] == []


def test_declared_memory_is_held_against_the_share_of_the_card(repository: Path, triton_model) -> None:
    triton_model("m", config=TENSORS, card=CARD + MEMORY)
    assert warnings(repository) == []
    assert warnings(repository, gpu_mib=48_000) == []
    (found,) = warnings(repository, gpu_mib=24_000)
    assert "memory.peak_mib: 9000 MiB, but share.gpu 0.25 of the card is 6000 MiB: set share.gpu: 0.38" in found


def test_a_decoupled_model_before_another_step_is_said(repository: Path, triton_model) -> None:
    plain = 'backend: "onnxruntime"\n' + "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: [1] }}\n'
        for kind, name in (("input", "X"), ("output", "Y"))
    )
    triton_model("many", config=plain + "model_transaction_policy { decoupled: true }")
    triton_model("slow", config=plain)
    steps = ", ".join(
        f'{{ model_name: "{name}" model_version: -1 input_map {{ key: "X" value: "{read}" }} '
        f'output_map {{ key: "Y" value: "{write}" }} }}'
        for name, read, write in (("many", "X", "t"), ("slow", "t", "Y"))
    )
    ensemble = plain.replace('backend: "onnxruntime"', 'platform: "ensemble"')
    triton_model("both", config=f"{ensemble}ensemble_scheduling {{ step [ {steps} ] }}")
    (found,) = warnings(repository)
    assert "both/config.pbtxt:4:ensemble_scheduling.step[0]: 'many' is decoupled" in found
