"""A second, small kustomize: builds this project's overlays where no kubectl is, and is compared with it where one is.

It knows exactly the fields that the overlays use and refuses all others, so that nothing is passed over in silence.
Generated ConfigMaps get no hash: the name with one is kubectl's business.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

KEYS = {
    "apiVersion", "kind", "namespace", "resources", "components", "patches", "images", "configMapGenerator",
    "configurations",
}  # fmt: skip
CLUSTER_WIDE = ("Namespace", "PriorityClass")


def build(folder: Path) -> list[Manifest]:
    """The objects of an overlay, in the order they were met."""
    return _apply(folder, [])


def _apply(folder: Path, objects: list[Manifest]) -> list[Manifest]:
    config = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(config) <= KEYS, f"{folder}: the builder does not know {set(config) - KEYS}"
    for name in config.get("resources", []):
        path = (folder / name).resolve()
        found = build(path) if path.is_dir() else _documents(path)
        objects = objects + found
    for generator in config.get("configMapGenerator", []):
        _generate(folder, generator, objects)
    for name in config.get("components", []):
        objects = _apply((folder / name).resolve(), objects)
    for patch in config.get("patches", []):
        text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
        objects = _patched(objects, patch["target"], yaml.safe_load(text))
    for image in config.get("images", []):
        _rename_images(objects, image)
    for each in objects:
        if config.get("namespace") and each["kind"] not in CLUSTER_WIDE:
            each["metadata"]["namespace"] = config["namespace"]
    return objects


def _documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def _generate(folder: Path, generator: Manifest, objects: list[Manifest]) -> None:
    lines = list(generator.get("literals", []))
    for name in generator.get("envs", []):
        lines += (folder / name).read_text(encoding="utf-8").splitlines()
    data = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    if generator.get("behavior", "create") == "merge":
        existing = next(each for each in objects if _named(each, "ConfigMap", generator["name"]))
        existing["data"] |= data
    else:
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})


def _named(each: Manifest, kind: str, name: str | None) -> bool:
    return bool(each["kind"] == kind and (name is None or each["metadata"]["name"] == name))


def _patched(objects: list[Manifest], target: Manifest, patch: Any) -> list[Manifest]:
    assert set(target) <= {"kind", "name"}
    hits = [each for each in objects if _named(each, target["kind"], target.get("name"))]
    assert hits, f"nothing matches {target}"
    if isinstance(patch, dict):
        assert patch.get("$patch") == "delete", "the builder knows no other strategic patch"
        return [each for each in objects if each not in hits]
    for each in hits:
        for operation in patch:
            _operate(each, operation)
    return objects


def _operate(document: Manifest, operation: Manifest) -> None:
    """One operation of RFC 6902, in place."""
    parent, key = _place(document, operation["path"])
    match operation["op"]:
        case "test":
            assert parent[key] == operation["value"], f"{operation['path']} is {parent[key]!r}"
        case "remove":
            del parent[key]
        case "replace":
            parent[key] = copy.deepcopy(operation["value"])
            assert key is not None
        case "add":
            _add(parent, key, copy.deepcopy(operation["value"]))
        case "copy":
            source, source_key = _place(document, operation["from"])
            _add(parent, key, copy.deepcopy(source[source_key]))
        case other:
            raise AssertionError(f"the builder does not know {other}")


def _place(document: Any, path: str) -> tuple[Any, Any]:
    *steps, last = path.removeprefix("/").split("/")
    for step in steps:
        document = document[_key(document, step)]
    return document, _key(document, last)


def _key(container: Any, step: str) -> Any:
    return int(step) if isinstance(container, list) else step.replace("~1", "/").replace("~0", "~")


def _add(parent: Any, key: Any, value: Any) -> None:
    if isinstance(parent, list):
        parent.insert(key, value)
    else:
        parent[key] = value


def _rename_images(value: Any, image: Manifest) -> None:
    if isinstance(value, list):
        for each in value:
            _rename_images(each, image)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name == "image" and isinstance(inner, str) and inner.split(":")[0] == image["name"]:
                value[name] = f"{image.get('newName', image['name'])}:{image['newTag']}"
            else:
                _rename_images(inner, image)
