"""The service over HTTP: an ASGI application, which Ray Serve or any ASGI server runs."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from acr_ray.serving.asking import CERTIFY, P_A, PREDICT
from acr_ray.serving.errors import Refused
from acr_ray.serving.service import Service

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
OPEN_PATHS = ("/healthz", "/readyz")  # no token: whoever watches a service needs none
WORDS = {
    404: "there is no such path",
    405: "the path is there, but not for this method",
    500: "the server failed; its log says how",
}

Answer = Callable[[Request], Awaitable[Response]]


def build_app(service: Service, token: bytes | None = None) -> Starlette:
    """Make the application.

    Args:
        service: that answers.
        token: that clients must send (``Authorization: Bearer …``); None: whoever reaches it may ask, and only under
            a name of this machine, so that no web page of elsewhere can ask through somebody's browser.
    """

    def guarded(endpoint: Answer) -> Answer:
        async def answer(request: Request) -> Response:
            try:
                if request.scope["path"] not in OPEN_PATHS:
                    _check_client(request, token)
                return await endpoint(request)
            except Refused as refused:
                return _refusal(refused)

        return answer

    async def ask(request: Request, kind: str) -> Response:
        body = await _body(request, service.settings.body_bytes)
        query = _query(request)
        return _json(200, await service.answer(kind, request.headers.get("content-type", ""), body, query))

    async def healthz(request: Request) -> Response:
        return _json(200, {"status": "alive"})

    async def readyz(request: Request) -> Response:
        return _json(200, {"status": "ready"}) if service.ready else _json(503, {"status": "no model is loaded yet"})

    async def model(request: Request) -> Response:
        return _json(200, service.describe())

    async def unknown(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _json(status, {"error": WORDS.get(status, WORDS[500]), "status": status})

    questions = [
        Route(f"/v1/{kind}", guarded(partial(ask, kind=kind)), methods=["POST"]) for kind in (PREDICT, CERTIFY, P_A)
    ]
    views = {"/healthz": healthz, "/readyz": readyz, "/v1/model": model}
    routes = [*questions, *(Route(path, guarded(view), methods=["GET"]) for path, view in views.items())]
    return Starlette(routes=routes, exception_handlers={HTTPException: unknown, Exception: unknown})


def _check_client(request: Request, token: bytes | None) -> None:
    if token is None:
        host = request.headers.get("host", "")
        name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
        if name not in LOCAL_NAMES:
            raise Refused(403, "without a token this server answers under localhost and 127.0.0.1 only")
        return
    given = request.headers.get("authorization")
    if given is None:
        raise Refused(401, "a token is needed: Authorization: Bearer TOKEN")
    scheme, _, value = given.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(value.strip().encode("latin-1", "replace"), token):
        raise Refused(403, "the token is not this server's")


def _query(request: Request) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in query:
            raise Refused(422, f"{name[:60]}: given twice")
        query[name] = value
    return query


async def _body(request: Request, most: int) -> bytes:
    """The body, read no further than it may be long."""
    text = f"the body: more than {most} bytes"
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdecimal() and int(declared[:20]) > most:
        raise Refused(413, text)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise Refused(413, text)
            parts.append(part)
    except ClientDisconnect:
        raise Refused(400, "the body: ended early") from None
    return b"".join(parts)


def _refusal(refused: Refused) -> Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
    return _json(refused.status, {"error": refused.text, "status": refused.status}, headers.get(refused.status))


def _json(status: int, values: dict, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(values, allow_nan=False).encode()
    return Response(content, status, headers, "application/json")
