"""The Job that builds a part's TensorRT plan on a node of a GPU type; rendered by `reelmesh k8s job-tensorrt`.

The one invariant: it is pure, and the pod passes the "restricted" standard that the namespace enforces.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from k8s.cluster import HOME, MODELS
from k8s.groups import MODELS as MODEL_PODS
from k8s.groups import priority_class
from k8s.names import NAME, SETTINGS, STORES, Manifest, image, metadata, selector
from k8s.pods import CONTAINER_SECURITY, POD_SECURITY, USER_HOME, USER_VARIABLES
from serving.errors import BadInput

COMPONENT: Final = "tensorrt"
PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
"""Set on nodes by NVIDIA's GPU feature discovery, which the GPU operator brings."""
GPU_TYPES: Final[Mapping[str, str]] = {
    "T4": "Tesla-T4",
    "A10": "NVIDIA-A10",
    "A10G": "NVIDIA-A10G",
    "A100": "NVIDIA-A100-SXM4-80GB",
    "L4": "NVIDIA-L4",
    "L40S": "NVIDIA-L40S",
    "H100": "NVIDIA-H100-80GB-HBM3",
    "H200": "NVIDIA-H200",
    "B200": "NVIDIA-B200",
}
"""Short names, and the product label of the most common board of each; other boards are named by their label."""
CLAIM: Final = "reelmesh-models"
"""The PersistentVolumeClaim with the model repository, which the studio makes; plans are written into it."""
PRECISIONS: Final = ("fp32", "fp16", "bf16")
"""In which `reelmesh optimize` exports what TensorRT takes."""

_NAME_LENGTH: Final = 63
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OPTION: Final = re.compile(r"[a-z_]{1,32}=[A-Za-z0-9_./-]{1,128}")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HASH_LENGTH: Final = 8
_MOUNTS: Final = {"home": HOME, "tmp": "/tmp", "user-home": USER_HOME}  # noqa: S108
_SIZES: Final = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "100Gi"}
"""The builder holds the ONNX file's weights twice; a UNet of 2.6 billion parameters has 10 GiB of them in fp32."""
_SMALL: Final = {"user-home": "1Gi"}
_DEADLINE_S: Final = 3 * 3600
_FINAL_CODES: Final = (1, 2, 3)
"""Failed, bad input, something is not installed: what `reelmesh optimize` says for good."""
_KEPT_S: Final = 24 * 3600
"""How long a Job that is over can be asked for its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to build, and where.

    Attributes:
        model: name in the repository.
        part: of the model, such as ``unet``.
        gpu_type: a key of :data:`GPU_TYPES`, or a value of the nodes' label :data:`PRODUCT_LABEL`.
        precision: one of :data:`PRECISIONS`; of a version that is named it is that version's.
        version: of the published part; None is the newest of the precision, which is exported if there is none.
        options: of the plan, ``KEY=VALUE``.
        image: with NVIDIA's TensorRT and Reelmesh; None is the mesh's own with ``-tensorrt`` behind it.
        claim: PersistentVolumeClaim with the model repository.
        node_labels: instead of the GPU's product, where a cloud has labels of its own.
    """

    model: str
    part: str
    gpu_type: str
    precision: str = "fp16"
    version: int | None = None
    options: Sequence[str] = ()
    image: str | None = None
    claim: str = CLAIM
    node_labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model", "part"):
            if not _NAME.fullmatch(getattr(self, name)):
                fix = "use letters, digits, '.', '_' and '-'"
                raise BadInput(f"{getattr(self, name)[:64]!r} is no name", field=name, fix=fix)
        if self.precision not in PRECISIONS:
            fix = f"use one of {', '.join(PRECISIONS)}"
            raise BadInput(f"there is no precision {self.precision!r}", field="precision", fix=fix)
        for option in self.options:
            if not _OPTION.fullmatch(option):
                fix = "write KEY=VALUE, as docs/tensorrt.md has them"
                raise BadInput(f"{option[:64]!r} is no option of a plan", field="plan", fix=fix)
        if self.image is not None and ":" not in self.image.rpartition("/")[2]:
            fix = "name its tag or digest, so that the same TensorRT builds again"
            raise BadInput(f"the image {self.image!r} has no version", field="image", fix=fix)
        for key, value in self.node_labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise BadInput(f"{key}={value} is no label of a node", field="node_selector", fix="write KEY=VALUE")


def tensorrt_job(wanted: Wanted) -> Manifest:
    """The Job.

    Raises:
        BadInput: there is no such GPU type.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(job_name(wanted)),
        "spec": {
            # A build that fails says why and would fail again; a node that goes away is another matter.
            "backoffLimit": 2,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(_FINAL_CODES)}},
                ]
            },
            "activeDeadlineSeconds": _DEADLINE_S,
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {"metadata": {"labels": selector(COMPONENT)}, "spec": _pod(wanted)},
        },
    }


def job_name(wanted: Wanted) -> str:
    """A name of its own for every model, part, version or precision, GPU type and option, at most 63 characters."""
    of = f"v{wanted.version}" if wanted.version else wanted.precision
    whole = "-".join((COMPONENT, wanted.model, wanted.part, of, wanted.gpu_type, *wanted.options))
    plain = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    digest = hashlib.sha256(whole.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{plain[: _NAME_LENGTH - _HASH_LENGTH - 1].rstrip('-')}-{digest}"


def node_selector(wanted: Wanted) -> dict[str, str]:
    """Labels of the nodes that have the GPU.

    Raises:
        BadInput: a short name that is not known.
    """
    if wanted.node_labels:
        return dict(wanted.node_labels)
    product = GPU_TYPES.get(wanted.gpu_type.upper(), wanted.gpu_type)
    if product == wanted.gpu_type and "-" not in product:
        fix = f"use one of {', '.join(GPU_TYPES)}, the nodes' label {PRODUCT_LABEL}, or --node-selector KEY=VALUE"
        raise BadInput(f"there is no GPU type {wanted.gpu_type[:64]!r}", field="gpu_type", fix=fix)
    if not _LABEL_VALUE.fullmatch(product):
        raise BadInput(
            f"{product[:64]!r} is no value of a label", field="gpu_type", fix=f"copy it from {PRODUCT_LABEL}"
        )
    return {PRODUCT_LABEL: product}


def _pod(wanted: Wanted) -> dict[str, Any]:
    storage = _SIZES["ephemeral-storage"]
    return {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "priorityClassName": priority_class(MODEL_PODS),
        "restartPolicy": "Never",
        "nodeSelector": node_selector(wanted),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": POD_SECURITY,
        "containers": [_container(wanted)],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": wanted.claim}},
            *({"name": name, "emptyDir": {"sizeLimit": _SMALL.get(name, storage)}} for name in _MOUNTS),
        ],
    }


def _container(wanted: Wanted) -> Manifest:
    sizes = {**_SIZES, "nvidia.com/gpu": "1"}
    return {
        "name": "build",
        "image": wanted.image or f"{image()}-tensorrt",
        "imagePullPolicy": "IfNotPresent",
        "command": ["reelmesh", "optimize", wanted.model],
        "args": [
            *("--part", wanted.part),
            *("--target", "tensorrt"),
            *("--precision", wanted.precision),
            *(("--version", str(wanted.version)) if wanted.version else ()),
            *(word for option in wanted.options for word in ("--plan", option)),
            *("--model-repository", MODELS),
        ],
        "env": [*USER_VARIABLES, {"name": "REELMESH_HOME", "value": HOME}],
        # Of the mesh: where weights come from, which are needed where the part is not published yet.
        "envFrom": [{"configMapRef": {"name": SETTINGS}}, {"secretRef": {"name": STORES}}],
        "resources": {"requests": sizes, "limits": sizes},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS},
            *({"name": name, "mountPath": path} for name, path in _MOUNTS.items()),
        ],
    }
