"""What models with weights need before a mesh starts on this machine: a GPU where they lease one, and their weights.

Called by running_mesh. The one invariant: what is missing is told, or fetched with its progress shown, before anything
starts; replicas on a cluster fetch for themselves.
"""

import time
from collections.abc import Callable
from typing import Final

from serving.cli.gpus import gpu_memories_mib
from serving.errors import MissingDependency
from serving.repository.load import Repository
from serving.repository.model import Model
from serving.repository.served import requested
from serving.settings import Settings

_CPU: Final = "REELMESH_ENGINES__DEVICE=cpu REELMESH_ENGINES__PRECISION=fp32"
_QUIET_S: Final = 1.0
_BAR: Final = 0.04
"""Where the bar of a start stands meanwhile."""

Report = Callable[[str, float], None]


def check_gpus(settings: Settings, repository: Repository) -> None:
    """Refuse models that lease a GPU where there is none.

    Raises:
        MissingDependency: names the first of them and what to set to run it on the CPU.
    """
    leasing = [model for model in _at_start(settings, repository) if model.card.share.gpu]
    if not leasing or settings.engines.device == "cpu" or gpu_memories_mib():
        return
    first = leasing[0]
    raise MissingDependency(
        f"{first.name} leases {first.card.share.gpu:g} of a GPU, and this machine has none",
        field=f"{first.name}/model.yaml:share.gpu",
        fix=f"start it where there is one; on the CPU, slowly: {_CPU}",
    )


def fetch_weights(settings: Settings, repository: Repository, report: Report) -> None:
    """Fetch what is not in this node's cache yet.

    Args:
        settings: resolved.
        repository: what is served.
        report: told how far each model is.

    Raises:
        ReelmeshError: as the cache raises it.
    """
    from serving.weights.cache import WeightsCache
    from serving.weights.needed import sources_of
    from serving.weights.progress import Progress

    cache = WeightsCache.of(settings)
    for needed in [one for model in _at_start(settings, repository) for one in sources_of(model)]:

        def told(progress: Progress, label: str = needed.label, began: float = time.monotonic()) -> None:
            if time.monotonic() - began < _QUIET_S:
                return  # it is here, or small
            part = progress.done_bytes / progress.total_bytes if progress.total_bytes else 0.0
            report(f"fetching {label}: {part:.0%} of {progress.total_bytes / 1e6:,.0f} MB", _BAR)

        cache.hold(needed.model, progress=told).close()


def _at_start(settings: Settings, repository: Repository) -> list[Model]:
    """Models of Ray replicas that are loaded from the beginning."""
    names = requested(repository, settings.inference)
    models = [repository.models[name] for name in names if name in repository.models]
    return [model for model in models if model.card.backend == "ray"]
