"""The HTTP routes: who may ask, which replica knows, and how it is counted."""

# Annotations are objects here, not text: a replica gets this class by value, without the names that text would need.

import asyncio
import hmac
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import prometheus_client as prometheus
from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from tunery import __version__
from tunery.inference.generator import Answer
from tunery.inference.predictor import Prediction
from tunery.inference.together import Asked
from tunery.serving.messages import (
    ChatRequest,
    ChatResponse,
    Choice,
    ErrorOut,
    ErrorResponse,
    Health,
    Message,
    ModelOut,
    ModelsResponse,
    PredictionOut,
    PredictRequest,
    PredictResponse,
    Usage,
)
from tunery.serving.replica import Fault, Said

_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": what}
    for status, what in (
        (400, "an input that the model cannot answer"),
        (401, "no token, or a wrong one"),
        (404, "a model that is not served"),
        (500, "what should not have happened"),
        (503, "too many requests at once, no memory for this one, or a model's process that is being started again"),
    )
}


_Kind = Literal["bad_input", "not_found", "unauthorised", "overloaded", "starting", "internal"]
_STATUS: Mapping[Fault, int] = {"bad_input": 400, "overloaded": 503, "internal": 500}


class _WrongError(Exception):
    def __init__(self, status: int, kind: _Kind, message: str) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message


@dataclass(frozen=True)
class Known:
    """What the front knows of a model; the replica knows the rest, as it is now."""

    model: str
    kind: str
    replica: str
    """The deployment that has it."""


app = FastAPIOffline(
    title="tunery",
    version=__version__,
    description="Models that were tuned and promoted with tunery.",
    responses=_WRONG,
)
_bearer = HTTPBearer(auto_error=False, description="The server's token; none is needed where it has none.")
_TOKEN = Depends(_bearer)
"""Of a route that needs it, for the OpenAPI page: `_Guard` has asked before."""
_GUARDED = ("/v1/", "/metrics")
_ROUTES = {"/v1/predict": "predict", "/v1/chat/completions": "chat"}
"""Those whose requests are counted by name."""
_Out = TypeVar("_Out")


class _Guard:
    """Asks for the token before anything of a body is read: who has none has nothing parsed, and nothing kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(_GUARDED):
            front: Any = serve.get_replica_context().servable_object  # decorated: mypy sees no class
            try:
                front.admit(await _bearer(Request(scope)), scope["path"])
            except _WrongError as wrong:
                await _error(wrong.status, wrong.kind, wrong.message)(scope, receive, send)
                return
        await self._app(scope, receive, send)


app.add_middleware(_Guard)


@app.exception_handler(_WrongError)
async def _told(_request: Request, wrong: _WrongError) -> JSONResponse:
    return _error(wrong.status, wrong.kind, wrong.message)


@app.exception_handler(RequestValidationError)
async def _told_invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
    found = [f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()]
    return _error(400, "bad_input", "; ".join(found))


@app.exception_handler(HTTPException)
async def _told_otherwise(request: Request, error: HTTPException) -> JSONResponse:
    kind: _Kind = "not_found" if error.status_code == 404 else "bad_input"
    asked = f"{request.method} {request.url.path}"
    return _error(error.status_code, kind, f"{error.detail}: {asked}; there is: {', '.join(app.openapi()['paths'])}")


@app.exception_handler(Exception)
async def _told_broken(_request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw, such as a replica that died; Ray Serve's log has its traceback."""
    return _error(500, "internal", f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def _error(status: int, kind: _Kind, message: str) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(ErrorResponse(error=ErrorOut(message=message, type=kind)).model_dump(), status, headers)


@serve.deployment(max_ongoing_requests=1024, max_queued_requests=4096)
@serve.ingress(app)
class Front:
    """One a server."""

    def __init__(self, token: str, replicas: Mapping[str, DeploymentHandle[Any]], models: Mapping[str, Known]) -> None:
        """`token`: empty where none is needed."""
        self._token, self._replicas, self._known = token, dict(replicas), dict(models)
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "tunery_requests", "Requests.", ["model", "route", "status"], registry=self._registry
        )
        self._inputs = prometheus.Counter("tunery_inputs", "Inputs answered.", ["model"], registry=self._registry)
        self._tokens = prometheus.Counter(
            "tunery_answer_tokens", "Tokens of answers.", ["model"], registry=self._registry
        )
        self._seconds = prometheus.Histogram(
            "tunery_request_seconds", "From a request to its answer.", ["route"], registry=self._registry
        )
        self._versions = prometheus.Gauge(
            "tunery_model", "1 for the version that is served.", ["model", "version"], registry=self._registry
        )

    def admit(self, credentials: HTTPAuthorizationCredentials | None, path: str) -> None:
        """Raises _WrongError without the token, where there is one."""
        if not self._token:
            return
        given = credentials.credentials if credentials else ""
        if not hmac.compare_digest(given.encode("latin-1", "replace"), self._token.encode()):
            # Paths that nobody serves would let whoever asks fill the memory.
            self._requests.labels("", _ROUTES.get(path, ""), "401").inc()
            raise _WrongError(401, "unauthorised", "a token is needed: Authorization: Bearer TOKEN")

    @app.get("/health")
    async def health(self) -> Health:
        """Whether it answers, and every model's process is there. Needs no token."""
        # Of Serve, which watches them: a replica itself answers when it has finished what it computes.
        states = {
            name: each.status
            for app in (await asyncio.to_thread(serve.status)).applications.values()
            for name, each in app.deployments.items()
        }
        gone = [known.model for known in self._known.values() if states.get(known.replica) != "HEALTHY"]
        if gone:
            raise _WrongError(503, "starting", f"the process of these is gone, and started again: {', '.join(gone)}")
        return Health(models=tuple(self._known))

    @app.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {}}}},
        response_class=Response,
        dependencies=[_TOKEN],
    )
    async def metrics(self) -> Response:
        """For Prometheus."""
        self._versions.clear()
        for each in await self._served():
            self._versions.labels(each.id, each.version).set(1)
        return Response(prometheus.generate_latest(self._registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    @app.get("/v1/models", dependencies=[_TOKEN])
    async def models(self) -> ModelsResponse:
        """What is served, and in which version."""
        return ModelsResponse(data=tuple(await self._served()))

    @app.post("/v1/predict", dependencies=[_TOKEN])
    async def predict(self, body: PredictRequest) -> PredictResponse:
        """Labels with their probabilities, or values, of one or more inputs."""
        return await self._counted("predict", body.model, self._predict(body))

    @app.post("/v1/chat/completions", dependencies=[_TOKEN])
    async def chat(self, body: ChatRequest) -> ChatResponse:
        """The answer of a model that generates, greedy, as OpenAI's clients ask for it."""
        return await self._counted("chat", body.model, self._chat(body))

    async def _predict(self, body: PredictRequest) -> PredictResponse:
        known = self._model(body.model, answers=False)
        said = await self._ask(known, [Asked(known.model, each.text, each.text2) for each in body.inputs])
        self._inputs.labels(known.model).inc(len(body.inputs))
        predictions = [each for each in said.results if isinstance(each, Prediction)]
        return PredictResponse(
            model=known.model,
            version=said.version,
            predictions=tuple(PredictionOut.model_validate(each.told()) for each in predictions),
        )

    async def _chat(self, body: ChatRequest) -> ChatResponse:
        known = self._model(body.model, answers=True)
        if body.stream or body.n > 1 or body.temperature > 0:
            raise _WrongError(400, "bad_input", "answers come whole, one, and greedy: no stream, n: 1, temperature: 0")
        *before, last = body.messages
        if before or last.role != "user":
            raise _WrongError(400, "bad_input", "the model answers one question: one message, of role user")
        most = body.max_completion_tokens or body.max_tokens
        said = await self._ask(known, [Asked(known.model, last.content, None, most)])
        (answer,) = said.results
        assert isinstance(answer, Answer)
        self._inputs.labels(known.model).inc()
        self._tokens.labels(known.model).inc(answer.tokens)
        return ChatResponse(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=known.model,
            choices=(
                Choice(
                    message=Message(role="assistant", content=answer.text),
                    finish_reason="stop" if answer.ended else "length",
                ),
            ),
            usage=Usage(
                prompt_tokens=answer.asked,
                completion_tokens=answer.tokens,
                total_tokens=answer.asked + answer.tokens,
            ),
        )

    async def _served(self) -> list[ModelOut]:
        found = [await replica.served.remote() for replica in self._replicas.values()]
        together: dict[str, ModelOut] = {name: each for models in found for name, each in models.items()}
        return [together[name] for name in self._known]

    def _model(self, given: str, *, answers: bool) -> Known:
        name, names = self._named(given), ", ".join(self._known)
        if not name:
            raise _WrongError(400, "bad_input", f"several models are served, name one; there are: {names}")
        if name not in self._known:
            raise _WrongError(404, "not_found", f"no model {name!r} is served; there are: {names}")
        found = self._known[name]
        if answers != (found.kind == "generation"):
            right = "/v1/predict" if answers else "/v1/chat/completions"
            raise _WrongError(400, "bad_input", f"model {name!r} is for {found.kind}: ask it at {right}")
        return found

    def _named(self, name: str) -> str:
        """The only one where none is named; empty where that is not told either."""
        return name or (next(iter(self._known)) if len(self._known) == 1 else "")

    async def _ask(self, known: Known, asked: Sequence[Asked]) -> Said:
        try:
            said: Said = await self._replicas[known.replica].ask.remote(asked)
        except BackPressureError as error:
            raise _WrongError(503, "overloaded", "too many requests at once: try again in a moment") from error
        if said.wrong:
            raise _WrongError(_STATUS[said.fault], said.fault, said.wrong)
        return said

    async def _counted(self, route: str, model: str, work: Awaitable[_Out]) -> _Out:
        began, status, model = time.perf_counter(), 500, self._named(model)
        try:
            out = await work
            status = 200
            return out
        except _WrongError as wrong:
            status = wrong.status
            raise
        finally:
            # Names that nobody serves would let whoever asks fill the memory.
            self._requests.labels(model if model in self._known else "", route, str(status)).inc()
            self._seconds.labels(route).observe(time.perf_counter() - began)
