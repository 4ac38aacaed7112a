"""The JSON Schema of a spec, for editors and other programs."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tunery import tasks
from tunery.spec import paths
from tunery.spec.types import Spec


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec, with the tasks, methods and paths known here spelled out."""
    methods = paths.known_methods()
    schema = Spec.model_json_schema(schema_generator=_Documented)
    fields, definitions = schema["properties"], schema["$defs"]
    named = {"anyOf": [{"enum": list(tasks.names())}, {"$ref": "#/$defs/OwnTask"}]}
    definitions["OwnTask"] = {"type": "string", "description": "A task that `custom` declares."}
    fields["tasks"] |= {"items": named, "uniqueItems": True}
    space = definitions["SearchSpec"]["properties"]["space"]
    definitions["Range"] = space.pop("additionalProperties")
    space["properties"] = {path: {"$ref": "#/$defs/Range"} for path in paths.searchable(methods)}
    space["additionalProperties"] = False
    definitions["Overrides"] = {
        "type": "object",
        "properties": {path: _field(path) for path in paths.overridable(methods)},
        "additionalProperties": False,
    }
    fields["overrides"] |= {
        "properties": {name: {"$ref": "#/$defs/Overrides"} for name in tasks.names()},
        "additionalProperties": {"$ref": "#/$defs/Overrides"},
    }
    fields["matrix"] |= {
        "properties": {
            path: {"type": "array", "minItems": 1, "uniqueItems": True, "items": _field(path)}
            for path in paths.matrix_paths(methods)
        },
        "additionalProperties": False,
    }
    catalogue = {"enum": list(tasks.names())}
    only_known = {"tasks": {"items": catalogue}, "overrides": {"propertyNames": catalogue}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "if": {"not": {"required": ["custom"]}},
        "then": {"properties": only_known},
    }


def _field(path: str) -> dict[str, Any]:
    """The schema of the field at a dotted path; of a tuner's field in the first of the methods that have it."""
    section, name = paths.split(path)
    if path == "tuner.method":
        return {"enum": list(paths.known_methods())}
    for method in paths.known_methods():
        cls = paths.section_class(section, method)
        if cls and name in cls.model_fields:
            found: dict[str, Any] = cls.model_json_schema(schema_generator=_Documented)["properties"][name]
            return found
    raise AssertionError(f"{path} is listed and is no field")


class _Documented(GenerateJsonSchema):
    """Fields are described by the docstrings beneath them.

    pydantic can do this itself, when a class is made: by reading its source, which would cost every start some 20 ms.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        cls: type[BaseModel] = schema["cls"]
        for name, info in cls.model_fields.items():
            text = _docstring(cls, name)
            if text:
                made["properties"][info.alias or name].setdefault("description", text)
        return made


def _docstring(cls: type[BaseModel], name: str) -> str:
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    return _docstrings(owner.__module__).get((owner.__qualname__, name), "")


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """(class, field) -> the string that stands beneath the field."""
    found = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.name, name] = inspect.cleandoc(text).replace("\n", " ")
    return found
