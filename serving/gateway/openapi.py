"""The OpenAPI document of the gateway; installed on its application.

The one invariant: it describes the answers as they are: errors in the mesh's one shape, bodies that routes read
themselves among the schemas.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_REF: Final = "#/components/schemas/{model}"
_FASTAPIS_OWN: Final = ("HTTPValidationError", "ValidationError")


def install_openapi(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Complete what FastAPI writes.

    Args:
        app: with all its routes.
        bodies: models that routes read from the body themselves, named in their ``openapi_extra``.
    """
    written = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = written()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            _, more = models_json_schema([(model, "validation") for model in bodies], ref_template=_REF)
            schemas.update(more.get("$defs", {}))
            for name in _FASTAPIS_OWN:
                schemas.pop(name, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
