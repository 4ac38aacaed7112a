"""The spec: its schema, its search space, and reading it from a file with the places of its mistakes."""

from __future__ import annotations

from tunery.spec.json_schema import json_schema
from tunery.spec.load import load_spec, parse_spec
from tunery.spec.space import Choice, IntUniform, LogUniform, Range, Uniform, Value
from tunery.spec.types import (
    API_VERSION,
    AnyTuner,
    DataSpec,
    ModelSpec,
    PrunerSpec,
    RegistrySpec,
    RerunSpec,
    Resources,
    SamplerSpec,
    SearchSpec,
    Spec,
    TrackingSpec,
)

__all__ = [
    "API_VERSION",
    "AnyTuner",
    "Choice",
    "DataSpec",
    "IntUniform",
    "LogUniform",
    "ModelSpec",
    "PrunerSpec",
    "Range",
    "RegistrySpec",
    "RerunSpec",
    "Resources",
    "SamplerSpec",
    "SearchSpec",
    "Spec",
    "TrackingSpec",
    "Uniform",
    "Value",
    "json_schema",
    "load_spec",
    "parse_spec",
]
