import pytest

from serving.backends.address import own_host
from serving.settings import Settings


def test_replicas_listen_on_the_loopback_unless_told() -> None:
    assert own_host(Settings()) == "127.0.0.1"


def test_on_several_nodes_replicas_listen_where_ray_knows_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.1.2.3")
    assert own_host(Settings(replica_network="node")) == "10.1.2.3"
