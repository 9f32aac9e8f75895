"""Look: statistics and metadata of models, merged over their replicas; asked by both wires.

The one invariant: gRPC answers are made of these same documents, so both wires always say the same.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import quote

import httpx
import structlog

from serving.errors import BadInput, NotFound, ReelmeshError
from serving.gateway.oip_mesh import OipMesh
from serving.gateway.oip_refusal import no_answer, refusal
from serving.gateway.oip_statistics import merge_metadata, merge_statistics
from serving.protocol.endpoint import ANY_MODEL
from serving.protocol.oip_json import parse_object

log = structlog.get_logger()

LOOK_S: Final = 10.0
"""How long a replica may take to tell of a model."""
_TIMEOUT: Final = httpx.Timeout(LOOK_S, connect=2.0, pool=2.0)


class Look:
    """Asks replicas on their ordinary ports.

    Args:
        mesh: knows them.
        client: for the calls.
    """

    def __init__(self, mesh: OipMesh, client: httpx.AsyncClient) -> None:
        self._mesh = mesh
        self._client = client

    async def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Statistics of one model, or of all; a replica that does not answer is left out.

        Raises:
            BadInput: the mesh has no such model, in Triton's words.
        """
        if not model:
            replicas = await self._mesh.edge.replicas()
            all_ports = {each.http for replica in replicas for each in replica.endpoints if each.model != ANY_MODEL}
            return merge_statistics(await self._documents(all_ports, "/v2/models/stats"))
        try:
            ports = {each.http for each in await self._mesh.serving(model)}
        except NotFound as error:
            raise BadInput(f"requested model '{model}' is not available") from error
        return merge_statistics(await self._documents(ports, model_path(model, version, "/stats"), needed=True))

    async def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """Metadata of one model, with the versions that any replica serves; raises as :meth:`OipMesh.find` does."""
        if version:
            ports = {(await self._mesh.find(model, version)).http}
        else:
            ports = {each.http for each in await self._mesh.serving(model)}
        return merge_metadata(await self._documents(ports, model_path(model, version), needed=True))

    async def _documents(self, ports: Collection[str], path: str, *, needed: bool = False) -> list[dict[str, Any]]:
        """What each replica says; where an answer is ``needed`` and nobody gives one, the first one's error."""
        found = await asyncio.gather(*(self._document(port, path) for port in sorted(ports)))
        documents = [document for document in found if isinstance(document, dict)]
        errors = [error for error in found if isinstance(error, ReelmeshError)]
        if needed and not documents and errors:
            raise errors[0]
        for error in errors:
            log.warning("oip_look_failed", path=path[:256], error=str(error))
        return documents

    async def _document(self, port: str, path: str) -> dict[str, Any] | ReelmeshError:
        try:
            answer = await self._client.get(f"http://{port}{path}", timeout=_TIMEOUT)
            return parse_object(answer.content, "answer") if answer.is_success else refusal(answer)
        except httpx.HTTPError as error:
            return no_answer("the replica", error)
        except BadInput as error:
            return error


def model_path(model: str, version: str, call: str = "") -> str:
    """OIP's path of a call on a model, quoted."""
    versions = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(model, safe='')}{versions}{call}"
