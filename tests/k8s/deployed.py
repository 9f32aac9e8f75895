"""Run as a script: a Ray cluster shaped like the rendered one, to which the configuration is sent as KubeRay does.

Prints one JSON object of what was seen. A process of its own, since a process holds one Ray session. The three nodes
are raylets on this machine: a head without CPUs, and one of each worker group.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc
import tritonclient.http
import yaml

from k8s.names import Manifest
from k8s.render import objects
from serving.cli.sentinel import sentinel
from serving.repository.load import load_repository
from serving.repository.served import with_optional

READY_S = 180
ROOT = Path(__file__).resolve().parents[2]


def main(home: str, http: int, grpc: int, metrics: int, dashboard: int, proxy: int) -> dict[str, Any]:
    rendered = objects(with_optional(load_repository([ROOT / "model_repository"]), []))
    service = next(each for each in rendered if each["kind"] == "RayService")
    os.environ |= next(each for each in rendered if each["kind"] == "ConfigMap")["data"]
    os.environ |= {
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "REELMESH_HOME": home,
        "REELMESH_MODEL_REPOSITORIES": json.dumps([str(ROOT / "model_repository")]),
        "REELMESH_EDGE__HTTP_PORT": str(http),
        "REELMESH_EDGE__GRPC_PORT": str(grpc),
        "REELMESH_EDGE__METRICS_PORT": str(metrics),
    }
    config = yaml.safe_load(service["spec"]["serveConfigV2"]) | {"http_options": {"port": proxy}}
    cluster = start(service["spec"]["rayClusterConfig"]["workerGroupSpecs"], dashboard)
    try:
        details = deploy(config, dashboard)
        return {"groups": places(details), "proxies": proxies(details), **look(http, grpc, proxy)}
    finally:
        stop(cluster)


def start(groups: list[Manifest], dashboard: int) -> Any:
    import ray
    from ray.cluster_utils import Cluster

    store = 100 << 20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "object_store_memory": store,
            "include_dashboard": True,
            "dashboard_port": dashboard,
        },
    )
    for group in groups:
        own = {name: float(value) for name, value in group["resources"].items() if name != "CPU"}
        resources = own | {f"group:{group['groupName']}": 1.0}
        cluster.add_node(
            num_cpus=int(group["resources"]["CPU"]),
            resources=resources,
            labels=group.get("labels", {}),
            object_store_memory=store,
        )
    ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
    return cluster


def deploy(config: Manifest, dashboard: int) -> Manifest:
    """PUT the configuration to the address the operator uses, and wait until it runs."""
    url = f"http://127.0.0.1:{dashboard}/api/serve/applications/"
    httpx.put(url, json=config, timeout=60).raise_for_status()
    deadline = time.monotonic() + READY_S
    while True:
        details: Manifest = httpx.get(url, timeout=10).json()
        app = details["applications"].get("reelmesh", {})
        if app.get("status") == "RUNNING" and set(proxies(details)) == {"HEALTHY"}:
            return details
        if app.get("status") == "DEPLOY_FAILED" or time.monotonic() > deadline:
            told = {name: (each["status"], each["message"]) for name, each in app.get("deployments", {}).items()}
            raise SystemExit(f"{app.get('status')}: {app.get('message')}\n{told}\nproxies: {proxies(details)}"[-3500:])
        time.sleep(1)


def proxies(details: Manifest) -> list[str]:
    return [proxy["status"] for proxy in details["proxies"].values()]


def places(details: Manifest) -> dict[str, str]:
    """The group that each deployment's replica runs in."""
    import ray

    of_node = {
        node["NodeID"]: next((name[6:] for name in node["Resources"] if name.startswith("group:")), "head")
        for node in ray.nodes()
    }
    deployments = details["applications"]["reelmesh"]["deployments"]
    return {name: of_node[each["replicas"][0]["node_id"]] for name, each in deployments.items()}


def look(http: int, grpc: int, proxy: int) -> dict[str, Any]:
    """What clients and KubeRay's probe get."""
    deadline = time.monotonic() + READY_S
    while httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code != httpx.codes.OK:
        if time.monotonic() > deadline:
            raise SystemExit("the edge did not become ready")
        time.sleep(0.5)
    return {
        "probe": httpx.get(f"http://127.0.0.1:{proxy}/-/healthz").text,
        "http": infer(tritonclient.http, http),
        "grpc": infer(tritonclient.grpc, grpc),
    }


def infer(client: Any, port: int) -> list[int]:
    """The shape that a model on Triton answers with, and how many bytes of sound one on Ray does."""
    mesh = client.InferenceServerClient(f"127.0.0.1:{port}")
    audio = client.InferInput("AUDIO", [16000], "FP32")
    audio.set_data_from_numpy(np.zeros(16000, np.float32))
    text, voice = client.InferInput("TEXT", [1], "BYTES"), client.InferInput("VOICE", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Good morning."], dtype=np.object_))
    voice.set_data_from_numpy(np.array([b"asha"], dtype=np.object_))
    features = mesh.infer("log_mel", [audio]).as_numpy("FEATURES")
    return [*features.shape, len(mesh.infer("speech", [text, voice]).as_numpy("AUDIO")[0])]


def stop(cluster: Any) -> None:
    import ray
    from ray import serve

    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    with sentinel(grace_s=2):  # Ray's agents may outlive its other processes
        print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
