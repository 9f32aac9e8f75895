"""KubeRay's CRDs as strict JSON schemas, with the meaning that the API server gives them."""

import functools
from pathlib import Path
from typing import Any

import yaml

QUANTITY = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


@functools.cache
def strict_schema(path: Path, version: str = "v1") -> dict[str, Any]:
    """The schema of one version of a CRD; fields that it does not name are refused, as with ``--validate=strict``."""
    crd = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    found = next(each for each in crd["spec"]["versions"] if each["name"] == version)
    schema = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def strict(schema: Any) -> Any:
    """One level of the schema, and all below it."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return QUANTITY
    found = {
        key: strict(value)
        for key, value in schema.items()
        if key != "properties" and not key.startswith("x-kubernetes-")
    }
    if "properties" in schema:
        found["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            found["additionalProperties"] = False
    if schema.get("nullable"):
        found["type"] = [schema["type"], "null"]
    return found
