"""What goes into the server and what comes out, as the OpenAPI page has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tunery.inference.card import AdapterCard

MOST_INPUTS = 1024
"""Of one request."""
_MOST_TEXT = 1_000_000
"""Characters."""


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Asked):
    """One input."""

    text: str = Field(max_length=_MOST_TEXT)
    text2: str | None = Field(None, max_length=_MOST_TEXT)
    """The second text, of a task on pairs."""


class PredictRequest(_Asked):
    """`POST /v1/predict`."""

    model: str = ""
    """As it was named to `platform serve`; may be left out where it serves one."""
    inputs: tuple[Input, ...] = Field(min_length=1, max_length=MOST_INPUTS)


class PredictionOut(BaseModel):
    """Of one input."""

    label: str | None
    """The likeliest label; null of a regression."""
    score: float
    """Its probability; of a regression the value."""
    scores: Mapping[str, float]


class PredictResponse(BaseModel):
    """In the order of the inputs."""

    model: str
    version: str
    """Of the registered model, or the folder."""
    predictions: tuple[PredictionOut, ...]


class Message(_Asked):
    """Of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=_MOST_TEXT)


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`, as OpenAI's clients send it; what sampling they ask for is greedy here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = ""
    messages: tuple[Message, ...] = Field(min_length=1, max_length=MOST_INPUTS)
    max_tokens: int | None = Field(None, ge=1, le=32_768)
    max_completion_tokens: int | None = Field(None, ge=1, le=32_768)
    temperature: float = Field(0.0, ge=0, le=2)
    n: int = Field(1, ge=1)
    stream: bool = False


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Choice(BaseModel):
    """The answer."""

    index: int = 0
    message: Message
    finish_reason: Literal["stop", "length"]


class ChatResponse(BaseModel):
    """As OpenAI's clients read it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Seconds since the epoch."""
    model: str
    choices: tuple[Choice, ...]
    usage: Usage


class ModelOut(BaseModel):
    """One model that is served."""

    id: str
    object: Literal["model"] = "model"
    version: str
    task: str
    kind: Literal["classification", "regression", "generation"]
    labels: tuple[str, ...]
    base: str


def described(model: str, version: str, card: AdapterCard) -> ModelOut:
    """A model as it is listed."""
    return ModelOut(id=model, version=version, task=card.task, kind=card.kind, labels=card.labels, base=card.base.id)


class ModelsResponse(BaseModel):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[ModelOut, ...]


class Health(BaseModel):
    """`GET /health`."""

    status: Literal["ok"] = "ok"
    models: tuple[str, ...]


class ErrorOut(BaseModel):
    """What was wrong."""

    message: str
    type: Literal["bad_input", "not_found", "unauthorised", "overloaded", "starting", "internal"]


class ErrorResponse(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorOut
