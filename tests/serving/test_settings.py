import pytest

from serving.errors import BadInput
from serving.settings import EdgeSettings, InferenceSettings, Settings, with_values


def test_addresses_with_passwords_are_in_no_repr() -> None:
    settings = Settings(jobs_database_url="postgresql://u:hunter2@h/d", artifacts_url="s3://key:hunter2@bucket")
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "hunter2" in settings.resolved().jobs_database_url


def test_a_flag_is_checked_as_a_variable_is_and_counts_as_set() -> None:
    edge = with_values(EdgeSettings(http_port=1), "edge", {"grpc_port": 2})
    assert edge == EdgeSettings(http_port=1, grpc_port=2)
    assert edge.model_fields_set == {"http_port", "grpc_port"}
    with pytest.raises(BadInput, match=r"REELMESH_INFERENCE__EXIT_TIMEOUT_S: 100000"):
        with_values(InferenceSettings(), "inference", {"exit_timeout_s": 1e5})
