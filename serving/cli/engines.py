"""The engines this installation knows, with their tasks, for checking model cards; used by lint, doctor and up.

The one invariant: the names come from the tables that replicas load from, so lint and replicas agree.
"""

from serving.repository.checks import Engines


def known_engines() -> Engines:
    """Engines of Ray replicas, and adapters between typed tasks and Triton."""
    from serving.backends.ray.engines import ENGINES
    from serving.backends.triton.adapters import ADAPTERS

    return {"ray": ENGINES, "triton": {name: (name,) for name in ADAPTERS}}
