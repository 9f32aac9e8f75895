"""TritonAdmin: Triton's own control plane, spoken over HTTP with the replica's token; used by process.py and server.py.

The one invariant: what Triton refuses leaves here as an error of serving.errors, in Triton's words.
"""

from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic import JsonValue

from serving.backends.control import Json
from serving.backends.triton.client import TRITON_TOKEN_HEADER, load_reason
from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unavailable, Unsupported, foreign_text
from serving.protocol.control import UNLOADED, ModelState

ANSWER_S: Final = 10.0
_ERRORS: Final[dict[int, type[ReelmeshError]]] = {
    400: BadInput,
    404: NotFound,
    501: Unsupported,
    503: Unavailable,
}
_REPOSITORY: Final = "/v2/repository/models"


class TritonAdmin:
    """Controls one tritonserver.

    Args:
        address: ``host:port`` of its HTTP service.
        token: opens the restricted part of the protocol.
    """

    def __init__(self, address: str, token: str) -> None:
        # Triton waits for idle connections when it ends, so none is kept.
        self._client = httpx.AsyncClient(
            base_url=f"http://{address}",
            headers={TRITON_TOKEN_HEADER: token},
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    async def index(self) -> list[ModelState]:
        """Every model and version that Triton sees, by name and version."""
        entries: Any = await self.ask("POST", "/v2/repository/index", {})
        return sorted((_state(entry) for entry in entries), key=lambda state: (state.name, state.version))

    async def load(self, model: str, timeout_s: float) -> None:
        """Load or reload a model of the view; raises :class:`BadInput` with the cause when it does not load."""
        try:
            await self.ask("POST", f"{_REPOSITORY}/{quote(model, safe='')}/load", {}, timeout_s)
        except (BadInput, EngineFailed) as error:
            raise BadInput(load_reason(error.problem), field=model) from error

    async def unload(self, model: str, *, dependents: bool) -> None:
        """Begin to unload a model; the index tells when it is done."""
        parameters: Json = {"unload_dependents": dependents}
        await self.ask("POST", f"{_REPOSITORY}/{quote(model, safe='')}/unload", {"parameters": dict(parameters)})

    async def ask(self, method: str, path: str, body: Json | None = None, timeout_s: float = ANSWER_S) -> JsonValue:
        """One call; the JSON of its answer, None where it has no body.

        Raises:
            ReelmeshError: of the class that fits the status; :class:`Unavailable` where Triton does not answer.
        """
        try:
            answer = await self._client.request(method, path, json=body, timeout=timeout_s)
            document: JsonValue = answer.json() if answer.content else None
        except httpx.HTTPError as error:
            raise Unavailable(f"tritonserver does not answer: {foreign_text(error) or type(error).__name__}") from error
        except ValueError as error:
            raise EngineFailed(f"tritonserver answered nonsense: {foreign_text(error)}") from error
        if answer.is_success:
            return document
        text = document.get("error") if isinstance(document, dict) else None
        # Uncut: the cause of a failed load may stand at the end, and is cut out by load_reason().
        raise _ERRORS.get(answer.status_code, EngineFailed)(str(text or f"status {answer.status_code}"))

    async def close(self) -> None:
        """Close its connections; calls under way fail."""
        await self._client.aclose()


def _state(entry: dict[str, str]) -> ModelState:
    """A model that was never loaded has a name alone."""
    states = {"LOADING": "LOADING", "READY": "READY", "UNLOADING": "UNLOADING"}
    reason = entry.get("reason", "")
    return ModelState.model_validate(
        {
            "name": entry["name"],
            "version": entry.get("version", ""),
            "state": states.get(entry.get("state", ""), "UNAVAILABLE"),
            "reason": reason if reason == UNLOADED else load_reason(reason),
        }
    )
