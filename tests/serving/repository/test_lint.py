from pathlib import Path

import pytest

from serving.repository.lint import lint

TRITON_CARD = """\
description: An MLP
task: tensor
backend: triton
engine: tensor
license: {name: MIT, commercial_use: true}
source: {uri: "file:."}
"""


def lines(repository: Path, severity: str = "error") -> list[str]:
    return [found.render(repository) for found in lint([repository]) if found.severity == severity]


def config(**changes: str) -> str:
    fields = {
        "backend": '"onnxruntime"',
        "max_batch_size": "8",
        "input": '[ { name: "X" data_type: TYPE_FP32 dims: [4] } ]',
        "output": '[ { name: "Y" data_type: TYPE_FP32 dims: [2] } ]',
    } | changes
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def test_a_good_repository_has_no_findings(repository: Path, ray_model, triton_model) -> None:
    ray_model("anna")
    triton_model("mlp", card=TRITON_CARD)
    assert lint([repository]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("max_batch_sise: 1\n", "m/config.pbtxt:1:-: ModelConfig has no field", id="unknown field"),
        pytest.param("backend: 'x'\ninput {", "m/config.pbtxt:2:-: Expected", id="broken"),
        pytest.param(config(name='"other"'), "m/config.pbtxt:5:name: 'other' is not the folder's name", id="name"),
        pytest.param(config(max_batch_size="-1"), "m/config.pbtxt:2:max_batch_size: is negative", id="negative"),
        pytest.param(
            config(dynamic_batching="{ preferred_batch_size: [16] }"),
            "m/config.pbtxt:5:dynamic_batching.preferred_batch_size[0]: 16 is over max_batch_size",
            id="preferred",
        ),
        pytest.param(
            config(input='[ { name: "X" dims: [4] } ]'), "m/config.pbtxt:3:input[0].data_type: is not set", id="type"
        ),
        pytest.param(
            config(max_batch_size="0", output='[ { name: "Y" data_type: TYPE_FP32 } ]'),
            "m/config.pbtxt:4:output[0].dims: is empty",
            id="dims",
        ),
    ],
)
def test_what_is_wrong_in_config_pbtxt(repository: Path, triton_model, text: str, expected: str) -> None:
    triton_model("m", config=text)
    assert [line for line in lines(repository) if line.startswith(expected)], lines(repository)


def test_a_backend_that_neither_config_nor_files_tell_is_asked_for(repository: Path, triton_model) -> None:
    folder = triton_model("m", config=config(backend=""))
    assert lines(repository) == []
    (folder / "1" / "model.onnx").rename(folder / "1" / "weights.onnx")
    assert lines(repository)[0].startswith("m/config.pbtxt:1:backend: neither backend nor platform")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param("task: x", "m/model.yaml:7:task: the key is repeated", id="repeated key"),
        pytest.param("fallbak: []", "m/model.yaml:7:fallbak: no such field: did you mean 'fallback'?", id="typo"),
        pytest.param("fallback: [m]", "m/model.yaml:7:fallback[0]: a model cannot fall back to itself", id="itself"),
        pytest.param("fallback:\n- nobody", "m/model.yaml:8:fallback[0]: no model 'nobody'", id="unknown fallback"),
        pytest.param(
            "fallback: [bed]", "m/model.yaml:7:fallback[0]: 'bed' does 'music', not 'speech'", id="other task"
        ),
        pytest.param("aliases: [bed]", "m/model.yaml:7:aliases[0]: 'bed' already names model 'bed'", id="alias"),
        pytest.param("replica_group: worker", "m/model.yaml:7:replica_group: 'worker' is the mesh's own", id="group"),
        pytest.param("replicas: {min: 3, max: 2}", "m/model.yaml:7:replicas.min: 3 is over max", id="replicas"),
        pytest.param("share: {gpu: 1.5}", "m/model.yaml:7:share.gpu: 1.5 is not whole", id="gpu"),
        pytest.param(
            "share: {cpu: many}", "m/model.yaml:7:share.cpu: 'many': input should be a valid number", id="cpu"
        ),
        pytest.param(
            "limits: {sped: 2}", "m/model.yaml:7:limits.sped: no such request field: did you mean", id="limit"
        ),
        pytest.param(
            "memory: {weights_mib: 9, peak_mib: 3, measured_on: here}",
            "m/model.yaml:7:memory.peak_mib: is below weights_mib",
            id="memory",
        ),
        pytest.param(
            "languages: [no]", "m/model.yaml:7:languages[0]: False is not text: put it in quotes", id="norway"
        ),
    ],
)
def test_what_is_wrong_in_model_yaml(repository: Path, ray_model, more: str, expected: str) -> None:
    ray_model("m", more=more + "\n")
    ray_model("bed", task="music")
    assert [line for line in lines(repository) if line.startswith(expected)], lines(repository)


def test_every_allowed_form_is_named(repository: Path, triton_model) -> None:
    triton_model("m", card=TRITON_CARD.replace("commercial_use: true", "commercial_use: maybe"))
    expected = "m/model.yaml:5:license.commercial_use: 'maybe' is not allowed: use true or false or 'conditional'"
    assert lines(repository) == [expected]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        pytest.param(
            "conditional",
            "m/model.yaml:5:license.condition: is missing, while commercial_use is conditional: say in one sentence",
            id="no condition",
        ),
        pytest.param(
            "true, condition: never",
            "m/model.yaml:5:license.condition: has no meaning with commercial_use: true: remove it, or set",
            id="a condition for nothing",
        ),
        pytest.param("false, condition: never", "has no meaning with commercial_use: false", id="nor for a refusal"),
        pytest.param("conditional, condition: ''", "license.condition: '': string should have at least 1", id="empty"),
        pytest.param("conditional, condition: small studios", "", id="right"),
    ],
)
def test_a_conditional_licence_names_its_condition(repository: Path, triton_model, terms: str, expected: str) -> None:
    triton_model("m", card=TRITON_CARD.replace("commercial_use: true", f"commercial_use: {terms}"))
    found = lines(repository)
    assert len(found) == bool(expected), found
    assert expected in "".join(found)


def test_a_missing_part_says_what_it_is_for(repository: Path, triton_model) -> None:
    triton_model("m", card=TRITON_CARD.replace("source:", "# source:"))
    assert lines(repository) == ["m/model.yaml:1:source: is missing: Where the weights come from"]


def test_an_empty_card_names_every_missing_field(repository: Path, triton_model) -> None:
    triton_model("m", card="")
    missing = {line.split(":")[2] for line in lines(repository)}
    assert missing == {"description", "task", "backend", "engine", "license", "source"}


def test_an_unknown_task_is_refused(repository: Path, triton_model) -> None:
    triton_model("m", card=TRITON_CARD.replace("tensor\nbackend", "speach\nbackend"))
    assert lines(repository) == ["m/model.yaml:2:task: no task 'speach': did you mean 'speech'?"]


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({"builtin": ["speech"]}, [], id="known"),
        pytest.param(
            {"builtins": ["speech"]},
            ["m/model.yaml:4:engine: no engine 'builtin': did you mean 'builtins'?"],
            id="unknown",
        ),
        pytest.param(
            {"builtin": ["music"], "espeak": ["speech"]},
            ["m/model.yaml:4:engine: 'builtin' does not do the task 'speech': engines that do: espeak"],
            id="another-task",
        ),
    ],
)
def test_an_unknown_engine_is_refused_where_engines_are_known(
    repository: Path, ray_model, known: dict[str, list[str]], expected: list[str]
) -> None:
    ray_model("m")
    assert [found.render(repository) for found in lint([repository], {"ray": known, "triton": {}})] == expected


def test_two_aliases_clash(repository: Path, ray_model) -> None:
    ray_model("a", more="aliases: [tts]")
    ray_model("b", more="aliases: [tts]")
    assert lines(repository) == ["b/model.yaml:7:aliases[0]: 'tts' already names model 'a': choose another alias"]


def test_a_task_has_one_default(repository: Path, ray_model) -> None:
    ray_model("a", more="default: true")
    ray_model("b", more="default: true")
    assert lines(repository)[0].startswith("b/model.yaml:7:default: 'a' is already the default for 'speech'")


def test_a_ray_model_declares_the_tensors_of_its_task(repository: Path, ray_model) -> None:
    from serving.protocol.task_tensors import config_text

    text = config_text("m", "speech").replace('"SPEED" data_type: TYPE_FP32', '"SPEED" data_type: TYPE_FP64')
    ray_model("m", config=text.replace('"VOICE"', '"VOICES"'))
    found = lines(repository)
    assert any(
        ":input: the task's tensors VOICE are not declared: `reelmesh models config m`" in line for line in found
    )
    assert any(":input.VOICES: the task has no such input" in line for line in found)
    assert any(":input.SPEED: declared as TYPE_FP64 [1] optional, but the task has TYPE_FP32" in line for line in found)


def test_a_ray_model_without_a_card_needs_files_that_an_engine_runs(repository: Path, triton_model) -> None:
    folder = triton_model("m", config=config(backend='"ray"'))
    assert lines(repository) == []
    (folder / "1" / "model.onnx").rename(folder / "1" / "model.plan")
    fix = "put model.onnx or model.py into it, or let Triton serve the model"
    assert lines(repository) == [f"m/1:-: nothing in it that a Ray replica can run: {fix}"]


@pytest.mark.parametrize("backend", ["onnxruntime", "ray"])
@pytest.mark.parametrize("engine", ["tensor", "onnxruntime"])
def test_one_line_moves_a_model_from_triton_to_ray(repository: Path, triton_model, backend: str, engine: str) -> None:
    card = TRITON_CARD.replace("backend: triton", "backend: ray").replace("engine: tensor", f"engine: {engine}")
    triton_model("m", config=config(backend=f'"{backend}"'), card=card)
    assert lint([repository], {"ray": {"espeak": ["speech"]}, "triton": {}}) == []


@pytest.mark.parametrize(
    ("backend", "engine", "expected"),
    [
        ("tensorrt", "tensor", "m/config.pbtxt:1:backend: no Ray engine runs models of Triton's backend 'tensorrt'"),
        ("onnxruntime", "python", "m/config.pbtxt:1:backend: 'onnxruntime', while model.yaml says engine 'python'"),
        ("ray", "espeak", "m/model.yaml:4:engine: no engine 'espeak' for tensors: use one of onnxruntime, python"),
    ],
)
def test_a_tensor_model_on_ray_has_an_engine_for_its_files(
    repository: Path, triton_model, backend: str, engine: str, expected: str
) -> None:
    card = TRITON_CARD.replace("backend: triton", "backend: ray").replace("engine: tensor", f"engine: {engine}")
    triton_model("m", config=config(backend=f'"{backend}"'), card=card)
    assert lines(repository)[-1].startswith(expected), lines(repository)


def test_triton_is_not_asked_to_serve_a_ray_model(repository: Path, triton_model) -> None:
    triton_model("m", config=config(backend='"ray"'), card=TRITON_CARD)
    assert lines(repository)[0].startswith("m/config.pbtxt:1:backend: Triton has no backend named 'ray'")


def test_a_triton_model_needs_a_version(repository: Path, triton_model) -> None:
    triton_model("m", versions=())
    assert lines(repository) == ["m:-: a Triton model needs a version folder: make m/1/ and put the model's file in it"]


def test_a_version_needs_its_file(repository: Path, triton_model) -> None:
    folder = triton_model("m", versions=(1, 2))
    (folder / "1" / "model.onnx").unlink()
    assert lines(repository) == [], "Triton serves the newest alone"
    (folder / "2" / "model.onnx").unlink()
    assert lines(repository) == [
        "m/2/model.onnx:-: the version's file is missing: put it there, or set default_model_filename"
    ]


def test_every_version_that_the_policy_serves_needs_its_file(repository: Path, triton_model) -> None:
    folder = triton_model("m", config=config(version_policy="{ all { } }"), versions=(1, 2))
    (folder / "1" / "model.onnx").unlink()
    assert lines(repository)[0].startswith("m/1/model.onnx:-: the version's file is missing")


def test_a_missing_file_that_can_be_exported_says_how(repository: Path, triton_model) -> None:
    card = TRITON_CARD + "export: {recipe: mlp, relative_tolerance: 0.001}\n"
    triton_model("m", card=card, versions=())
    assert lines(repository)[0].endswith("run `reelmesh optimize m`")


@pytest.mark.parametrize("name", ["v1", "1.0", "01", "latest"])
def test_a_version_folder_that_triton_passes_over_is_a_warning(repository: Path, triton_model, name: str) -> None:
    folder = triton_model("m") / name
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"")
    assert lines(repository) == []
    assert "is not a number Triton counts" in lines(repository, "warning")[0]


def test_a_folder_that_is_no_model_is_refused(repository: Path) -> None:
    (repository / "notes").mkdir()
    assert lines(repository)[0].startswith("notes:-: not a model: neither config.pbtxt nor model.yaml")


def test_a_name_must_fit_an_address(repository: Path, triton_model) -> None:
    triton_model("my model")
    assert "cannot stand in an address" in lines(repository)[0]


def test_dynamic_batching_without_batches_is_a_warning(repository: Path, triton_model) -> None:
    triton_model("m", config=config(max_batch_size="0", dynamic_batching="{ }"))
    assert lines(repository) == []
    assert lines(repository, "warning")[0].startswith("m/config.pbtxt:5:dynamic_batching: has no effect")


def test_a_shadowed_model_is_a_warning(tmp_path: Path, repository: Path, triton_model) -> None:
    triton_model("m")
    second = tmp_path / "second"
    (second / "m").mkdir(parents=True)
    findings = lint([repository, second])
    assert [(found.severity, found.file) for found in findings] == [("warning", second / "m")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"\xff\xfe", "not UTF-8 at byte 0", id="not text"),
        pytest.param(b"#" * (1 << 20) + b"#", "larger than 1 MiB", id="too large"),
        pytest.param(b"", "a Triton model", id="empty"),
    ],
)
@pytest.mark.parametrize("file", ["config.pbtxt", "model.yaml"])
def test_a_hostile_file_is_a_finding(repository: Path, triton_model, file: str, content: bytes, problem: str) -> None:
    folder = triton_model("m", card=TRITON_CARD)
    (folder / file).write_bytes(content)
    found = lines(repository)
    if file == "config.pbtxt" and not content:
        assert found == [], "Triton completes an empty configuration"
    else:
        assert not content or problem in found[0]


def test_a_folder_in_place_of_a_file_is_a_finding(repository: Path, triton_model) -> None:
    folder = triton_model("m")
    (folder / "config.pbtxt").unlink()
    (folder / "config.pbtxt").symlink_to(folder / "nowhere")
    (folder / "model.yaml").write_text(TRITON_CARD)
    assert lines(repository)[0].startswith("m/config.pbtxt:-: the file is missing")


def plan_model(repository: Path, *files: str) -> None:
    """A model of TensorRT plans, whose configuration leads two compute capabilities to files of their own."""
    (repository / "m" / "1").mkdir(parents=True)
    for file in files:
        (repository / "m" / "1" / file).write_bytes(b"plan")
    lines = "".join(
        f'cc_model_filenames {{ key: "{key}" value: "model-sm{key.replace(".", "")}.plan" }}\n'
        for key in ("8.9", "9.0")
    )
    (repository / "m" / "config.pbtxt").write_text(config(backend="", platform='"tensorrt_plan"') + lines)


def test_plans_by_compute_capability_need_no_default_file(repository: Path) -> None:
    plan_model(repository, "model-sm89.plan", "model-sm90.plan")
    assert lines(repository) == []
    assert lines(repository, "warning") == []


def test_a_plan_that_some_gpus_lack_is_a_warning(repository: Path) -> None:
    plan_model(repository, "model-sm90.plan")
    assert lines(repository) == []
    [warning] = lines(repository, "warning")
    assert warning.startswith("m/1/model-sm89.plan:-: the version's file for GPUs of compute capability 8.9 is missing")


def test_without_any_plan_the_file_is_missing(repository: Path) -> None:
    plan_model(repository)
    [error] = lines(repository)
    assert error.startswith("m/1/model.plan:-: the version's file is missing")
