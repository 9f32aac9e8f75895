"""ModelConfig, with which a python-backend model completes its own config.pbtxt; used by tensor_python.

The class, its methods and its texts are those of Triton's ``triton_python_backend_utils``.
The one invariant: what config.pbtxt says stays; a model that says otherwise is refused.
"""

from collections.abc import Mapping
from typing import Any, Final

Document = dict[str, Any]

_INPUT_PROPERTIES: Final = ("name", "data_type", "dims", "optional")
_OUTPUT_PROPERTIES: Final = ("name", "data_type", "dims")


class ModelConfig:
    """A configuration that ``auto_complete_config`` may add to.

    Args:
        document: config.pbtxt as JSON values.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._document.setdefault("max_batch_size", 0)
        for kind in ("input", "output"):
            self._document.setdefault(kind, [])

    def as_dict(self) -> Document:
        """The configuration; for reading."""
        return self._document

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set it; raises ValueError when config.pbtxt has a larger one."""
        said = self._document["max_batch_size"]
        if said > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {said}, but in auto-complete-config function for model "
                f"'{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._document["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Batch dynamically; raises ValueError when config.pbtxt has another scheduler."""
        for other in ("sequence_batching", "ensemble_scheduling"):
            if other in self._document:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{other}', but auto-complete-config "
                    f"function for model '{self._name}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._document.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, bool]) -> None:
        """Set ``decoupled``; raises ValueError when config.pbtxt says otherwise."""
        if set(transaction_policy_dict) - {"decoupled"}:
            raise ValueError(
                f"model transaction property in auto-complete-config function for model '{self._name}' "
                "contains property other than 'decoupled'."
            )
        policy = self._document.setdefault("model_transaction_policy", {})
        if "decoupled" not in transaction_policy_dict:
            return
        wanted = transaction_policy_dict["decoupled"]
        if policy.get("decoupled") not in (None, wanted):
            raise ValueError(
                f"trying to change decoupled property in auto-complete-config for model '{self._name}', "
                f"which is already set to '{policy['decoupled']}'."
            )
        policy["decoupled"] = wanted

    def add_input(self, input: Document) -> None:
        """Add an input, or complete the one of that name; raises ValueError when they differ."""
        self._add("input", input, _INPUT_PROPERTIES)

    def add_output(self, output: Document) -> None:
        """Add an output, or complete the one of that name; raises ValueError when they differ."""
        self._add("output", output, _OUTPUT_PROPERTIES)

    @property
    def _name(self) -> str:
        return str(self._document.get("name", ""))

    def _add(self, kind: str, entry: Document, allowed: tuple[str, ...]) -> None:
        place = f"in auto-complete-config function for model '{self._name}'"
        for needed in _OUTPUT_PROPERTIES:
            if needed not in entry:
                named = f" '{entry['name']}'" if "name" in entry else ""
                raise ValueError(f"{kind}{named} {place} is missing '{needed}' property.")
        if set(entry) - set(allowed):
            words = ", ".join(f"'{word}'" for word in allowed[:-1])
            raise ValueError(
                f"{kind} '{entry['name']}' {place} contains property other than {words} and '{allowed[-1]}'."
            )
        known = next((said for said in self._document[kind] if said["name"] == entry["name"]), None)
        if known is None:
            self._document[kind].append(dict(entry))
            return
        self._check(kind, known, entry)
        known.update(entry)

    def _check(self, kind: str, known: Document, entry: Document) -> None:
        said = known.get("data_type", "TYPE_INVALID")
        if said not in ("TYPE_INVALID", entry["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {said} "
                f"for {kind} '{entry['name']}', model provides {entry['data_type']}"
            )
        for word in ("dims", "optional"):
            have, want = known.get(word), entry.get(word)
            if have and want is not None and have != want:
                raise ValueError(
                    f"model '{self._name}', tensor '{entry['name']}': the model expects {word} {want} "
                    f"but the model configuration specifies {word} {have}"
                )
