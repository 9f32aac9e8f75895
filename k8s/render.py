"""Turns the model repository into Kubernetes objects, and into the files of k8s/base; called by `reelmesh k8s`.

The one invariant: it is pure but for write(), and what it returns has passed check().
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from k8s import around
from k8s.capacity import Amounts
from k8s.check import check
from k8s.cluster import cluster_settings, unset, variables
from k8s.names import NAME, SETTINGS, Manifest
from k8s.network import network_policies
from k8s.problems import Problem
from k8s.rayservice import ray_service
from serving.errors import BadInput
from serving.repository.load import Repository
from serving.repository.serve_config import serve_config

HEADER: Final = "# Rendered by `reelmesh k8s render --out k8s/base`: change the model repository or k8s/*.py.\n"
SETTINGS_FILE: Final = "settings.env"
KUSTOMIZATION: Final = "kustomization.yaml"
REFERENCES: Final = "references.yaml"

CONTAINER_PATHS: Final = tuple(
    f"spec/rayClusterConfig/{group}/template/spec/containers/envFrom" for group in ("headGroupSpec", "workerGroupSpecs")
)
"""Where a RayService names ConfigMaps and Secrets, which kustomize does not know by itself."""


GPU_POD: Final[Amounts] = {"CPU": Decimal(7), "GPU": Decimal(1)}
"""What Ray may lease in a pod of the component gpu-workers, which models that lease a GPU need."""
GPU_PODS: Final = 4


def objects(repository: Repository) -> list[Manifest]:
    """Everything to apply, the settings as a plain ConfigMap among it.

    Args:
        repository: what the cluster serves, and no other optional models.

    Raises:
        BadInput: the objects would be refused, or the deployments do not fit the groups.
    """
    found = [each for part in parts(repository).values() for each in part]
    found.insert(1, around.config_map(variables(cluster_settings(_optional(repository)))))
    refuse(check(found, [GPU_POD] * GPU_PODS))
    return found


def parts(repository: Repository) -> dict[str, list[Manifest]]:
    """The objects by the file they stand in, without the settings; the caller's own, which share no values."""
    config = serve_config(repository, unset(), proxy_location="EveryNode")
    found = {
        "namespace.yaml": [around.namespace()],
        "accounts.yaml": around.service_accounts(),
        "priorities.yaml": around.priority_classes(),
        "network.yaml": network_policies(),
        "rayservice.yaml": [ray_service(config)],
        "service.yaml": [around.service()],
        "disruption.yaml": around.disruption_budgets(),
    }
    return {name: [json.loads(json.dumps(each)) for each in part] for name, part in found.items()}


def _optional(repository: Repository) -> list[str]:
    return [model.name for model in repository.models.values() if model.card.optional]


def refuse(problems: list[Problem]) -> None:
    """Raise the first problem as :class:`BadInput`, and how many more there are."""
    if problems:
        first, *more = problems
        tail = f" (and {len(more)} more: {'; '.join(problem.where for problem in more[:8])})" if more else ""
        raise BadInput(first.problem, field=first.where, fix=first.fix + tail)


def files(repository: Repository) -> dict[str, str]:
    """The text of every file of the base, by name; raises as :func:`objects` does."""
    objects(repository)
    found = parts(repository)
    lines = [f"{name}={value}" for name, value in variables(cluster_settings(_optional(repository))).items()]
    return {
        KUSTOMIZATION: HEADER + dump(_kustomization(list(found))),
        REFERENCES: HEADER + dump(_references()),
        SETTINGS_FILE: HEADER + "\n".join(lines) + "\n",
        **{name: HEADER + stream(part) for name, part in found.items()},
    }


def write(texts: Mapping[str, str], folder: Path) -> None:
    """Write the files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def outdated(texts: Mapping[str, str], folder: Path) -> list[str]:
    """Names of files that are missing or different in a folder, or that nothing renders any more."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} if folder.is_dir() else {}
    return sorted(name for name in {*texts, *there} if texts.get(name) != there.get(name))


def stream(manifests: list[Manifest]) -> str:
    """Objects as one YAML text of several documents."""
    return "---\n".join(dump(manifest) for manifest in manifests)


def dump(value: Manifest) -> str:
    """YAML in the order given, texts of several lines as blocks."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110)


def _kustomization(resources: list[str]) -> Manifest:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAME,
        "resources": resources,
        # The name gets a hash of the content, so that other settings roll a new cluster.
        "configMapGenerator": [{"name": SETTINGS, "envs": [SETTINGS_FILE]}],
        "configurations": [REFERENCES],
    }


def _references() -> Manifest:
    kinds = {"ConfigMap": "configMapRef", "Secret": "secretRef"}
    return {
        "nameReference": [
            {
                "kind": kind,
                "version": "v1",
                "fieldSpecs": [{"kind": "RayService", "path": f"{path}/{field}/name"} for path in CONTAINER_PATHS],
            }
            for kind, field in kinds.items()
        ]
    }


class _Dumper(yaml.SafeDumper):
    """Readable YAML: no anchors for values that stand in two places, blocks for long texts."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401  PyYAML's signature
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
