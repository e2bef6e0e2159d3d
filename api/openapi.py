"""The calls of an API as data, and the OpenAPI 3.1 document made from them.

An Operation is what the application routes (api.app) and what the document describes, so that the two cannot differ.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Response
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api import schemas
from settings import Settings

Schema = dict[str, Any]

REF = "#/components/schemas/{model}"

ID_PARAMETER: Schema = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "the UUID of a message, or its source id, percent-encoded",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": schemas.NO_NUL},
}
RETRY_AFTER: Schema = {"description": "seconds", "schema": {"type": "integer"}}


@dataclass(frozen=True)
class Answer:
    """One answer of an operation. `model` None: text of `content_type`."""

    description: str
    model: type[BaseModel] | None = None
    content_type: str = "application/json"
    headers: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """One call. `path` has {id} where an id stands; `view` gets the Parts, and id, query and body if there are any."""

    method: str
    path: str
    view: Callable[..., Response]
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    query: type[BaseModel] | None = None
    body: type[schemas.Input] | None = None
    open: bool = False  # to everybody, with API_KEYS set too

    @property
    def rule(self) -> str:
        return self.path.replace("{id}", "<message_id:id>")


def problem(description: str) -> Answer:
    return Answer(description, schemas.ProblemDocument, "application/problem+json")


def unavailable(description: str) -> Answer:
    return Answer(description, schemas.ProblemDocument, "application/problem+json", {"Retry-After": RETRY_AFTER})


def all_answers(operation: Operation, settings: Settings) -> dict[int, Answer]:
    """The operation's own answers, and those that its kind of input adds."""
    common: dict[int, Answer] = {500: problem("a bug; the log of the API has it")}
    if operation.query or operation.body:
        common[400] = problem("something in the request is wrong, and `detail` says what")
    if operation.body:
        common[413] = problem("the body is too large")
        common[408] = problem("the rest of the body did not come in time")
        common[415] = problem("the body is not application/json in UTF-8")
    if settings.api_key_set and not operation.open:
        common[401] = Answer(
            "no key, or a wrong one",
            schemas.ProblemDocument,
            "application/problem+json",
            {"WWW-Authenticate": {"schema": {"type": "string"}}},
        )
    return dict(sorted({**common, **operation.answers}.items()))


def document(title: str, description: str, operations: Iterable[Operation], settings: Settings) -> Schema:
    """The OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1.html) of these operations."""
    chosen = list(operations)
    models: set[tuple[type[BaseModel], JsonSchemaMode]] = set()
    for operation in chosen:
        models |= {(model, "validation") for model in (operation.body, operation.query) if model}
        models |= {
            (answer.model, "serialization") for answer in all_answers(operation, settings).values() if answer.model
        }
    references, made = models_json_schema(sorted(models, key=lambda pair: pair[0].__name__), ref_template=REF)
    components = made.get("$defs", {}) | {"JsonValue": schemas.JSON_VALUE, "JsonObject": schemas.JSON_OBJECT}
    if "NewMessage" in components:
        # No maxLength: a text beyond it is answered with 413, and what a schema forbids is answered with 400.
        components["NewMessage"]["properties"]["message"]["description"] = (
            f"at most {settings.max_text_chars:,} characters, not only white space, no NUL"
        )
    named = {model: references[model, mode] for model, mode in models}
    paths: dict[str, Schema] = {}
    for operation in chosen:
        described = describe(operation, settings, components, named)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    components = {name: schema for name, schema in components.items() if name not in query_models(chosen)}
    whole: Schema = without_titles(
        {
            "openapi": "3.1.0",
            "info": {"title": title, "version": "1.0.0", "description": description},
            "paths": paths,
            "components": {"schemas": dict(sorted(components.items())), **security_schemes(settings)},
        }
    )
    return whole


def query_models(operations: Iterable[Operation]) -> set[str]:
    return {operation.query.__name__ for operation in operations if operation.query}


def describe(
    operation: Operation, settings: Settings, components: Schema, references: Mapping[type[BaseModel], Schema]
) -> Schema:
    described: Schema = {
        "operationId": operation.view.__name__,
        "summary": operation.summary,
        "responses": {
            str(status): describe_answer(answer, references)
            for status, answer in all_answers(operation, settings).items()
        },
    }
    if operation.description:
        described["description"] = operation.description
    parameters = [ID_PARAMETER] if "{id}" in operation.path else []
    if operation.query:
        parameters += query_parameters(components[operation.query.__name__])
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": references[operation.body]}},
        }
    if settings.api_key_set and not operation.open:
        described["security"] = [{"bearer": []}, {"key": []}]
    return described


def describe_answer(answer: Answer, references: Mapping[type[BaseModel], Schema]) -> Schema:
    schema = references[answer.model] if answer.model else {"type": "string"}
    described: Schema = {"description": answer.description, "content": {answer.content_type: {"schema": schema}}}
    if answer.headers:
        described["headers"] = dict(answer.headers)
    return described


def query_parameters(model: Schema) -> list[Schema]:
    """A parameter for each field. In a query string nothing is null, only absent."""
    parameters = []
    for name, schema in model["properties"].items():
        plain = dict(schema)
        if "anyOf" in plain:
            (only,) = (kind for kind in plain.pop("anyOf") if kind != {"type": "null"})
            plain = {**only, **plain}
        if plain.get("default", "") is None:
            del plain["default"]
        required = name in model.get("required", ())
        parameter: Schema = {"name": name, "in": "query", "required": required, "schema": plain}
        if "description" in plain:
            parameter["description"] = plain.pop("description")
        parameters.append(parameter)
    return parameters


def security_schemes(settings: Settings) -> Schema:
    if not settings.api_key_set:
        return {}
    return {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    }


def without_titles(schema: Any) -> Any:
    """Pydantic repeats every name as a title, which says nothing; a member called "title" stays."""
    if isinstance(schema, dict):
        return {
            name: without_titles(value)
            for name, value in schema.items()
            if name != "title" or not isinstance(value, str) or "version" in schema
        }
    if isinstance(schema, list):
        return [without_titles(item) for item in schema]
    return schema
