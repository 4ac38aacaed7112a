"""A base model with its adapter, as it was trained: the same weights, the same quantisation, the same head.

Nothing that is loaded here can run code: weights are safetensors only, and remote code is never trusted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging

from storage.fetching import base_folder
from tuners.engine import Reader
from tuners.engine.families import family_of
from tuners.engine.gemm import native_dtype
from tuners.errors import TunerError
from tunery.errors import InputError, NotFoundError
from tunery.inference.card import AdapterCard
from tunery.inference.engine import base_of, load_base, read
from tunery.inference.running import InEngine, InTransformers, Running
from tunery.tasks.prompting import stop_tokens

ADAPTER = "adapter_model.safetensors"
SIDE = "side_model.safetensors"


def usable_device(name: str | None = None) -> str:
    """The device of that name, by default the GPU where there is one. InputError for one that is not here."""
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    # torch was built without it (AssertionError), or it knows no such device (RuntimeError).
    except (AssertionError, RuntimeError, ValueError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        known = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
        why = str(error).partition("\n")[0]
        raise InputError(f"device {name!r} cannot be used here: {why}; there is: {known}") from error
    return name


def load(folder: Path, card: AdapterCard, *, device: str, quantised: bool = True) -> Running:
    """Load a folder's model for inference.

    `quantised=False` takes the base as it is, also where what is loaded was trained on a 4-bit one. Raises
    NotFoundError where the base cannot be had, InputError where the folder is not what its card says.
    """
    if (folder / SIDE).is_file():
        return _in_engine(folder, card, device, quantised=quantised)
    return load_in_transformers(folder, card, device=device, quantised=quantised)


def load_in_transformers(folder: Path, card: AdapterCard, *, device: str, quantised: bool = True) -> InTransformers:
    """The same of an adapter of PEFT's, or of a merged model."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    pad = _pad_token(tokenizer)
    # Weights that the base lacks (the head's) are drawn from the global stream before ours replace them.
    with torch.random.fork_rng(devices=[]), quiet():
        if card.merged:
            model, missing = _base(str(folder), card, device, pad, quantised=False)
        else:
            base = base_folder(card.base.id, card.base.revision, card.base.source)
            model, missing = _base(base, card, device, pad, quantised)
            missing -= _saved(folder)
        if missing:
            names = ", ".join(sorted(missing)[:5])
            raise InputError(f"neither {folder} nor its base {card.base.id} has the weights {names}: it would guess")
        if not card.merged:
            model = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    return InTransformers(model.to(device).eval(), tokenizer, pad, device)


def _in_engine(folder: Path, card: AdapterCard, device: str, *, quantised: bool) -> InEngine:
    spec = base_of(folder, card, device=device)
    if not quantised:
        spec = replace(spec, quantisation="none", dequantised_once=False)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    with quiet():
        reader = Reader(load_base(spec, device))
    read(reader, "", folder, card, stop=stop_tokens(tokenizer) if card.kind == "generation" else ())
    return InEngine(reader, "", tokenizer)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bar, the warning that the head is not the base's (it never is), and what is old between libraries."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _base(folder: str, card: AdapterCard, device: str, pad: int, quantised: bool) -> tuple[Any, set[str]]:
    """The base with an untrained head, and the weights that its files lack."""
    labels = card.labels or ("value",)
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        described: dict[str, Any] = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": "regression" if card.kind == "regression" else "single_label_classification",
        }
        generates = card.kind == "generation"
        config = AutoConfig.from_pretrained(folder, **({} if generates else described), **options)
        # In the configuration too: decoders look there for where a sequence ends.
        config.get_text_config().pad_token_id = config.pad_token_id = pad
        if quantised and card.base.quantisation != "none":
            options |= {"quantization_config": _four_bit(card, config, device), "device_map": {"": device}}
        kind = AutoModelForCausalLM if generates else AutoModelForSequenceClassification
        model, report = kind.from_pretrained(
            folder, config=config, dtype=_dtype(card, device), use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise NotFoundError(f"the base model {card.base.id!r} cannot be loaded: {error}") from error
    if generates:
        # Whoever published the base may ask for sampling, penalties or a length: what was trained was scored without.
        model.generation_config = GenerationConfig.from_model_config(config)
    _keep_gradients_and_numbers(model.modules())
    return model, set(report["missing_keys"])


def _four_bit(card: AdapterCard, config: Any, device: str) -> Any:
    # Only a quantised base needs bitsandbytes.
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=card.base.quantisation == "nf4-double",
        bnb_4bit_compute_dtype=_dtype(card, device),
        llm_int8_skip_modules=_dense(config.model_type),
    )


def _dense(model_type: str) -> list[str]:
    """The linear layers that training never quantises: the head's, and what is pooled with."""
    try:
        family = family_of(model_type)
    except TunerError:  # merged or trained elsewhere: no family of the engine's
        return ["classifier", "score"]
    # Full names: transformers takes "pooler" alone for no part of "bert.pooler.dense".
    return sorted({layer.path for layer in family.head} | {f"{family.prefix}.pooler"})


def _keep_gradients_and_numbers(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        # Else bitsandbytes repacks a CPU layer's weights in its first forward, into another computation.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _dtype(card: AdapterCard, device: str) -> torch.dtype:
    name = native_dtype(torch.device(device)) if card.base.dtype == "auto" else card.base.dtype
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def _saved(folder: Path) -> set[str]:
    """The base's own names of the weights that the adapter brings whole (PEFT's modules_to_save)."""
    try:
        with safe_open(folder / ADAPTER, framework="pt") as file:
            return {name.removeprefix("base_model.model.") for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} has no {ADAPTER} that can be read: {error}; pickles are not loaded") from error


def _pad_token(tokenizer: Any) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if token is not None:
            return int(token)
    raise AssertionError("unreachable: 0 is a token")
