"""JSON merge patch (RFC 7396): how people edit a job's input and results; used by forks.

The one invariant: neither the value nor the patch is changed.
"""

from pydantic import JsonValue


def merge_patch(value: JsonValue, patch: JsonValue) -> JsonValue:
    """The value with the patch applied: objects merge, ``null`` removes a member, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), change)
    return merged
