import pytest

from k8s.cluster import RAY_VARIABLES, cluster_settings, unset, variables
from serving.repository.serve_config import public_settings
from serving.settings import Settings


def test_the_pods_read_the_settings_that_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(cluster_settings()).items():
        monkeypatch.setenv(name, value)
    assert Settings.model_validate(public_settings(unset())) == Settings.model_validate(
        public_settings(cluster_settings())
    )


def test_only_what_differs_from_a_laptop_is_named() -> None:
    assert set(variables(cluster_settings())) == {
        "REELMESH_HOME",
        "REELMESH_MODEL_REPOSITORIES",
        "REELMESH_REPLICA_NETWORK",
        "REELMESH_EDGE__HOST",
        "REELMESH_EDGE__ALLOW_ANONYMOUS",
        "REELMESH_EDGE__HTTP_PORT",
        "REELMESH_EDGE__GRPC_PORT",
        "REELMESH_EDGE__METRICS_PORT",
        "REELMESH_LOG__STYLE",
        *RAY_VARIABLES,
    }


def test_settings_that_nobody_set_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELMESH_HOME", "/elsewhere")
    assert public_settings(unset()) == {}
