"""ControlMemory: the control plane's calls that replicas starting later repeat, in order; kept by EdgeDeployment.

The one invariant: it is a pure table with bounds on count and bytes, and a call that does not fit leaves it as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from serving.errors import TooLarge, Unavailable
from serving.protocol.control import ControlCall

_NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class ControlMemory:
    """Remembered calls by key; a call with a known key takes the place of the older one, and moves to the end.

    Args:
        most_calls: how many calls fit.
        most_bytes: how many bytes of text they may have together.
        calls: in the order in which they were made.
        used_bytes: of all calls.
    """

    most_calls: int
    most_bytes: int
    calls: Mapping[str, ControlCall] = field(default_factory=dict)
    used_bytes: int = 0

    def remember(self, call: ControlCall) -> "ControlMemory":
        """The table with the call.

        Raises:
            TooLarge: it would not even fit alone; names the bound.
            Unavailable: it does not fit; names the bound.
        """
        rest, size = self.forget(call.key), call_bytes(call)
        if size > self.most_bytes:
            raise TooLarge(
                f"the call has {size} bytes, files in base64, and the mesh keeps {self.most_bytes} of all together",
                field="limits.control_bytes",
                fix="put the files into the model repository, or raise the limit",
            )
        used = rest.used_bytes + size
        if len(rest.calls) >= self.most_calls:
            raise Unavailable(
                f"the mesh remembers {self.most_calls} control calls already",
                field="limits.control_calls",
                fix="unload models or unregister regions that nobody uses, or raise the limit",
            )
        if used > self.most_bytes:
            raise Unavailable(
                f"the control calls to remember have {used} bytes together, and {self.most_bytes} may be kept",
                field="limits.control_bytes",
                fix="unload models that were loaded with files, or raise the limit",
            )
        return ControlMemory(self.most_calls, self.most_bytes, {**rest.calls, call.key: call}, used)

    def forget(self, key: str) -> "ControlMemory":
        """The table without the key, which need not be there; one that ends in "/" stands for all that begin so."""
        gone = [name for name in self.calls if name == key or (key.endswith("/") and name.startswith(key))]
        if not gone:
            return self
        calls = {name: call for name, call in self.calls.items() if name not in gone}
        freed = sum(call_bytes(self.calls[name]) for name in gone)
        return ControlMemory(self.most_calls, self.most_bytes, calls, self.used_bytes - freed)

    def recall(self, key: str = "") -> list[ControlCall]:
        """Every call, in order; or the one with the key, if there is one."""
        return [call for name, call in self.calls.items() if key in ("", name)]


def call_bytes(call: ControlCall) -> int:
    """Roughly what a call takes: the text in it, and eight bytes for whatever is no text."""
    size = len(call.key) + len(call.path)
    # Not by recursion, since nesting is the caller's.
    waiting: list[JsonValue] = [call.body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            size += len(value.encode(errors="surrogatepass"))
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        size += _NUMBER_BYTES
    return size
