"""Turns errors into answers of the OpenAI shape; installed on the gateway's application.

The one invariant: every answer that is no success says what is wrong, where, and what to do; never how we are made.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from serving.errors import BadInput, NotFound, QueueFull, ReelmeshError, Unprocessable, Unsupported

RETRY_AFTER_S: Final = 2
_CLIENT_ERRORS: Final = range(400, 500)


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses`` say of these statuses."""
    return {status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in statuses}


def error_body(error: ReelmeshError) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}`` as OpenAI's clients read it."""
    kind = "invalid_request_error" if error.http_status in _CLIENT_ERRORS else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": error.code}}


def error_response(error: ReelmeshError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for an error of the mesh; a retryable one says when to come again."""
    seconds = error.retry_after_s if isinstance(error, QueueFull) else RETRY_AFTER_S
    wait = {"Retry-After": str(seconds)} if error.retryable else {}
    return JSONResponse(error_body(error), status_code=error.http_status, headers={**wait, **(headers or {})})


def of_http(error: HTTPException) -> ReelmeshError:
    """An error of Starlette's routing as one of ours."""
    if error.status_code == NotFound.http_status:
        return NotFound("there is nothing at this address", fix="/openapi.json lists the addresses")
    if error.status_code in _CLIENT_ERRORS:
        return BadInput(str(error.detail))
    return Unsupported(str(error.detail))


def of_request(error: RequestValidationError) -> Unprocessable:
    """What FastAPI found in a request's path, query or headers."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    message = str(first["msg"])
    return Unprocessable(message[:1].lower() + message[1:], field=field)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every kind of error in the one shape; crashes are answered by the guard, outside the application."""

    @app.exception_handler(ReelmeshError)
    async def _mesh(_request: Request, error: ReelmeshError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        answer = error_response(of_http(error), error.headers)
        answer.status_code = error.status_code
        return answer

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(of_request(error))
