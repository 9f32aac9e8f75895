"""The engine names this installation knows, for checking model cards; used by `reelmesh models lint`, doctor and up.

The one invariant: the names come from the tables that replicas load from, so lint and replicas agree.
"""

from serving.repository.checks import Engines


def known_engines() -> Engines:
    """Engines of Ray replicas, and adapters between typed tasks and Triton."""
    from serving.backends.ray.engines import ENGINES
    from serving.backends.triton.adapters import ADAPTERS

    return {"ray": ENGINES.keys(), "triton": ADAPTERS.keys()}
