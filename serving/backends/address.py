"""Where a replica listens and is found by the edge; asked by engine and Triton replicas and by the gateway.

The one invariant: replicas listen on one address, the one they tell, so that nothing of them is open elsewhere.
"""

from typing import Final

from serving.settings import Settings

LOOPBACK: Final = "127.0.0.1"


def own_host(settings: Settings) -> str:
    """The loopback where everything is on one machine, else the address that Ray knows this node by."""
    if settings.replica_network == "loopback":
        return LOOPBACK
    import ray

    return str(ray.util.get_node_ip_address())
