"""The repository index of the whole mesh, from what every replica tells of its models; used by OipMesh.

The one invariant: pure functions; a model is READY when one replica is, and its reason then says which are not.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from serving.protocol.control import UNLOADED, ModelState, State
from serving.protocol.endpoint import ANY_MODEL, Heartbeat

Entry = dict[str, str]
Versions = Mapping[str, ModelState]

_WORKING: Final[tuple[State, ...]] = ("LOADING", "UNLOADING")


def merge_index(replicas: Sequence[Heartbeat], requested: Collection[str], known: Collection[str] = ()) -> list[Entry]:
    """One entry for each model and version, by name and version.

    Args:
        replicas: the living ones.
        requested: models that should be served; one that no replica holds is UNAVAILABLE.
        known: models of the repository; one that nobody holds or asked for has its name alone, as in Triton.
    """
    held = _held(replicas)
    entries = [entry for name, holders in held.items() for entry in _entries(name, holders)]
    lost = set(requested) - held.keys()
    entries += [{"name": name, "state": "UNAVAILABLE", "reason": "no replica answers"} for name in lost]
    entries += [{"name": name} for name in set(known) - held.keys() - lost]
    return sorted(entries, key=_order)


def missing_models(replicas: Sequence[Heartbeat], requested: Collection[str]) -> list[str]:
    """Models that should be served and are not: requested ones, and those that replicas hold or load.

    A model unloaded on purpose is not missing.
    """
    held = _held(replicas)
    missing = set(requested) - held.keys()
    for name, holders in held.items():
        states = [state for holder in holders for state in holder.values()]
        excuses = (UNLOADED,) if name in requested else (UNLOADED, "")
        excused = all(state.state == "UNAVAILABLE" and state.reason in excuses for state in states)
        if not excused and not any(state.state == "READY" for state in states):
            missing.add(name)
    return sorted(missing)


def _held(replicas: Sequence[Heartbeat]) -> dict[str, list[Versions]]:
    """By model: what each replica that holds it says of its versions."""
    held: dict[str, list[Versions]] = defaultdict(list)
    for replica in replicas:
        mine: dict[str, dict[str, ModelState]] = defaultdict(dict)
        for state in replica.models:
            mine[state.name][state.version] = state
        for endpoint in replica.endpoints:
            # An endpoint is ready whether or not the replica lists its models.
            if endpoint.model != ANY_MODEL and endpoint.model not in mine:
                state = ModelState(name=endpoint.model, version=endpoint.version or "1", state="READY")
                mine[endpoint.model][state.version] = state
        for name, versions in mine.items():
            held[name].append(versions)
    return held


def _entries(name: str, holders: Sequence[Versions]) -> list[Entry]:
    versions = {version for holder in holders for version in holder if version} or {""}
    return [_entry(name, version, holders) for version in versions]


def _entry(name: str, version: str, holders: Sequence[Versions]) -> Entry:
    states = [holder.get(version) or holder.get("") or _absent(name, version) for holder in holders]
    rest = [state for state in states if state.state != "READY"]
    if len(rest) < len(states):
        # A replica that is READY has a reason when a later load failed and the version before goes on serving.
        told = [state for state in states if state.state != "READY" or state.reason]
        reasons = dict.fromkeys(state.reason or state.state for state in told)
        reason = f"{len(told)} of {len(states)} replicas: {'; '.join(reasons)}" if told else ""
        state: State = "READY"
    else:
        state = next((kind for kind in _WORKING if any(each.state == kind for each in rest)), "UNAVAILABLE")
        reason = "; ".join(dict.fromkeys(each.reason for each in rest if each.reason))
    entry = {"name": name, "version": version, "state": state, "reason": reason}
    return entry if version else {key: value for key, value in entry.items() if key != "version"}


def _absent(name: str, version: str) -> ModelState:
    return ModelState(name=name, version=version, state="UNAVAILABLE", reason="has no such version")


def _order(entry: Entry) -> tuple[str, int, str]:
    version = entry.get("version", "")
    return entry["name"], int(version) if version.isascii() and version.isdigit() else 0, version
