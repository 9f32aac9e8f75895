"""The mesh's settings on a cluster, as variables of a ConfigMap; used by render.

The one invariant: the ConfigMap alone holds them, so that an overlay may change one; serveConfigV2 carries none.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from k8s.names import EDGE_PORTS
from serving.repository.serve_config import public_settings
from serving.settings import EdgeSettings, InferenceSettings, LogSettings, Settings

HOME: Final = "/var/lib/reelmesh"
"""Where a pod keeps what it may lose: caches and scratch space. What must last lies in the stores."""
MODELS: Final = "/opt/reelmesh/model_repository"
"""Where the image has the model repository that was rendered."""

RAY_VARIABLES: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""As `reelmesh up` sets them."""


def unset() -> Settings:
    """Settings that nobody set: the serve configuration then leaves all of them to the pods' environment.

    The environment of whoever renders must not get into the manifests, so it is not read here.
    """
    return Settings.model_construct()


def cluster_settings(optional: Sequence[str] = ()) -> Settings:
    """What differs from a laptop; nothing here is a secret.

    Args:
        optional: models marked optional that the cluster serves.
    """
    found = Settings.model_construct(
        home=Path(HOME),
        model_repositories=[Path(MODELS)],
        replica_network="node",
        edge=EdgeSettings(
            host="0.0.0.0",  # noqa: S104  the pod's network; NetworkPolicies say who reaches it
            http_port=EDGE_PORTS["http"],
            grpc_port=EDGE_PORTS["grpc"],
            metrics_port=EDGE_PORTS["metrics"],
            # Until an overlay mounts a key file, the NetworkPolicies are what keeps strangers out.
            allow_anonymous=True,
        ),
        log=LogSettings(style="json"),
    )
    asked = InferenceSettings(optional_models=list(optional))
    return found.model_copy(update={"inference": asked}) if optional else found


def variables(settings: Settings) -> dict[str, str]:
    """The settings that were set, as :class:`Settings` reads them from the environment, by name."""
    found = dict(RAY_VARIABLES)

    def add(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            variable = f"{prefix}{name.upper()}"
            if isinstance(value, dict):
                add(f"{variable}__", value)
            else:
                found[variable] = value if isinstance(value, str) else json.dumps(value)

    add("REELMESH_", public_settings(settings))
    return dict(sorted(found.items()))
