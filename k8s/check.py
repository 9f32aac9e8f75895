"""Checks of rendered objects that no schema makes; used by `reelmesh k8s render` and on the overlays by the tests.

The one invariant: it is pure; what passes here is neither refused by the KubeRay operator nor left unplaced by Ray.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from k8s.capacity import Amounts, capacity_problems
from k8s.names import PROXY_PORT, Manifest
from k8s.operator_rules import operator_problems
from k8s.pods import grace_s
from k8s.problems import Problem, identity
from k8s.references import reference_problems, templates


def check(objects: Sequence[Manifest], beside: Sequence[Amounts] = ()) -> list[Problem]:
    """Everything wrong with a set of objects that are applied together.

    Args:
        objects: to be applied.
        beside: what Ray may lease in pods of groups that a kustomize component adds to them.
    """
    problems: list[Problem] = []
    for each in objects:
        if each.get("kind") == "RayService":
            problems += _ray_service(each, beside)
    return problems + list(reference_problems(objects))


def _ray_service(service: Manifest, beside: Sequence[Amounts]) -> Iterator[Problem]:
    for broken in operator_problems(service):
        yield Problem(identity(service), *broken)
    config = serve_config_of(service)
    if isinstance(config, Problem):
        yield config
        return
    if any(broken.field.endswith("spec.containers") for broken in operator_problems(service)):
        return
    yield from capacity_problems(service, config, beside)
    yield from _pods(service, config)


def serve_config_of(service: Manifest) -> Mapping[str, Any] | Problem:
    """The Serve configuration inside a RayService; the API server takes any text, so here it is read."""
    fix = "render it from the model repository: reelmesh k8s render"
    try:
        config = yaml.safe_load(service["spec"].get("serveConfigV2", ""))
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())[:120]
        return Problem(identity(service), "spec.serveConfigV2", f"it is no YAML: {text}", fix)
    if not isinstance(config, dict) or not config.get("applications"):
        return Problem(identity(service), "spec.serveConfigV2", "it has no applications", fix)
    return config


def _pods(service: Manifest, config: Mapping[str, Any]) -> Iterator[Problem]:
    longest = grace_s({"applications": [{"deployments": app.get("deployments", [])} for app in config["applications"]]})
    for path, template in templates(service):
        spec = template["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if grace < longest:
            yield Problem(
                identity(service),
                f"{path}.spec.terminationGracePeriodSeconds",
                f"{grace} s cuts off replicas that may drain for longer",
                f"use at least {longest}",
            )
        for port in spec["containers"][0].get("ports", []):
            if port["containerPort"] == PROXY_PORT and port.get("name") != "serve":
                yield Problem(
                    identity(service),
                    f"{path}.spec.containers[0].ports[{port.get('name')}]",
                    f"Ray Serve's proxy has port {PROXY_PORT} of every pod",
                    "choose another port for the edge in k8s/names.py",
                )
