import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from k8s.around import priority_classes, service_accounts
from k8s.names import NAME, PART_OF, Manifest
from k8s.tensorrt_job import GPU_TYPES, PRODUCT_LABEL, Wanted, job_name, tensorrt_job
from serving.cli.main import run
from serving.errors import BadInput

from .conftest import ROOT
from .restricted import restricted, strict
from .test_render import KUBERNETES


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"model": "sdxl", "part": "unet", "gpu_type": "H200", **changes})


def pod(job: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, {"gpu_type": "NVIDIA-H100-PCIe"}, {"node_labels": {"cloud.google.com/gke-accelerator": "nvidia-h200-141gb"}}],
    ids=["short name", "label", "a cloud's label"],
)
def test_kubernetes_schema_accepts_the_job(changes: dict[str, Any]) -> None:
    kubernetes_validate.validate(tensorrt_job(wanted(**changes)), KUBERNETES, strict=True)


def test_kubernetes_schema_refuses_a_typo_in_it() -> None:
    job = tensorrt_job(wanted())
    pod(job)["spec"]["nodeSelecter"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="nodeSelecter"):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_the_pod_passes_the_restricted_standard_and_a_strict_reviewer() -> None:
    assert restricted(pod(tensorrt_job(wanted()))) == []
    assert strict(pod(tensorrt_job(wanted()))) == []


def test_it_builds_on_one_gpu_of_the_type() -> None:
    spec = pod(tensorrt_job(wanted(precision="bf16")))["spec"]
    [container] = spec["containers"]
    assert spec["nodeSelector"] == {PRODUCT_LABEL: "NVIDIA-H200"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert (
        container["resources"]["requests"]["nvidia.com/gpu"]
        == container["resources"]["limits"]["nvidia.com/gpu"]
        == "1"
    )
    line = " ".join([*container["command"], *container["args"]])
    assert line.startswith("reelmesh optimize sdxl --part unet --target tensorrt --precision bf16 --model-repository ")
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
    assert line.endswith(mount["mountPath"])
    assert "readOnly" not in mount, "the plan is written into the repository"


def test_what_it_names_is_in_the_base() -> None:
    spec = pod(tensorrt_job(wanted()))["spec"]
    assert spec["serviceAccountName"] in {each["metadata"]["name"] for each in service_accounts()}
    assert spec["priorityClassName"] in {each["metadata"]["name"] for each in priority_classes()}


def test_the_meshs_network_policies_hold_for_it_and_its_services_do_not_find_it() -> None:
    labels = pod(tensorrt_job(wanted()))["metadata"]["labels"]
    assert labels[PART_OF] == NAME
    assert "app.kubernetes.io/name" not in labels


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"part": "vae"}, {}),
        ({"gpu_type": "L4"}, {}),
        ({"precision": "bf16"}, {}),
        ({"model": "a.b"}, {"model": "a-b"}),
    ],
    ids=["part", "gpu", "precision", "names that look alike"],
)
def test_different_builds_have_different_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert job_name(wanted(**one)) != job_name(wanted(**other))


def test_a_name_fits_into_a_label() -> None:
    name = job_name(wanted(model="M" + "x" * 127, part="vae.decoder_"))
    assert len(name) <= 63
    kubernetes_validate.validate(tensorrt_job(wanted(model="M" + "x" * 127)), KUBERNETES, strict=True)
    assert name == name.lower()
    assert name[0].isalpha()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"gpu_type": "H20"}, f"gpu_type: there is no GPU type 'H20': use one of .*{PRODUCT_LABEL}", id="gpu"
        ),
        pytest.param({"gpu_type": "NVIDIA H-200"}, "gpu_type: 'NVIDIA H-200' is no value of a label", id="label"),
        pytest.param({"precision": "fp4"}, "precision: there is no precision 'fp4'", id="precision"),
        pytest.param({"model": "--force"}, "model: '--force' is no name", id="an option as a model"),
        pytest.param({"part": "a b"}, "part: 'a b' is no name", id="part"),
        pytest.param({"image": "registry:5000/reelmesh"}, "image: .* has no version", id="image"),
        pytest.param({"node_labels": {"a b": "c"}}, "node_selector: a b=c is no label", id="node label"),
    ],
)
def test_what_no_node_or_server_takes_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tensorrt_job(wanted(**changes))


def test_every_short_name_is_a_label() -> None:
    for name in GPU_TYPES:
        kubernetes_validate.validate(tensorrt_job(wanted(gpu_type=name.lower())), KUBERNETES, strict=True)


@pytest.fixture
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("_in_the_checkout")
def test_the_command_prints_what_kubectl_applies(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["k8s", "job-tensorrt", "sdxl", "--part", "unet", "--gpu-type", "L4", "--version", "3"]
    line += ["--plan", "version_compatible=yes"]
    assert run([*line, "--image", "registry.studio/reelmesh:1-trt", "--node-selector", "pool=l4"]) == 0
    text = yaml.safe_load(capsys.readouterr().out)
    assert run([*line, "--image", "registry.studio/reelmesh:1-trt", "--node-selector", "pool=l4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == text
    assert text["kind"] == "Job"
    assert pod(text)["spec"]["nodeSelector"] == {"pool": "l4"}
    (container,) = pod(text)["spec"]["containers"]
    assert container["args"][-6:-2] == ["--version", "3", "--plan", "version_compatible=yes"]
    assert [next(iter(source)) for source in container["envFrom"]] == ["configMapRef", "secretRef"]


@pytest.mark.usefixtures("_in_the_checkout")
@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        pytest.param(["sdxll", "--gpu-type", "L4"], 2, "no model 'sdxll'", id="model"),
        pytest.param(["sdxl", "--gpu-type", "L5"], 2, "no GPU type 'L5'", id="gpu"),
        pytest.param(["sdxl", "--gpu-type", "L4", "--node-selector", "l4"], 2, "write KEY=VALUE", id="label"),
        pytest.param(["sdxl", "--gpu-type", "L4", "--precision", "fp8"], 2, "use one of fp32, fp16, bf16", id="fp8"),
        pytest.param(["sdxl", "--gpu-type", "L4", "--plan", "level"], 2, "'level' is no option of a plan", id="plan"),
    ],
)
def test_the_command_refuses_in_one_line(
    capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str
) -> None:
    assert run(["k8s", "job-tensorrt", "--part", "unet", *more]) == code
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err
    assert len(found.err.splitlines()) == 1
