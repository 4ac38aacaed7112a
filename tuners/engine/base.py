"""The frozen model that a pack holds: loaded once, called on sequences that lie end to end."""

# T tokens, N sequences, I the hidden size

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from tuners.engine.attention import NAME, prepare
from tuners.engine.beside import Beside
from tuners.engine.cache import Cache
from tuners.engine.context import Context
from tuners.engine.families import Family, family_of
from tuners.engine.group import Group, Workers
from tuners.engine.head import Head, SeatHead
from tuners.engine.kernels import kernels
from tuners.engine.language import LanguageHead
from tuners.engine.layout import Layout, Rows, lay_out, training_rows
from tuners.engine.linear import DenseWeight, PackedDropout, PackedLinear, Weight
from tuners.engine.recompute import recompute
from tuners.engine.sharding import layers_of, local_tensors, shard
from tuners.engine.slots import SlotsBySite, Trained
from tuners.engine.types import BaseSpec, Example, HeadSpec
from tuners.engine.weights import Weights
from tuners.errors import SeatError, TunerError
from tuners.needs import NF4_BYTES

_NOTHING = Example(np.zeros(1, np.int32), None, 0.0)


class Base:
    """One frozen backbone and the layers at which seats may train something. Runs one forward at a time."""

    def __init__(
        self,
        spec: BaseSpec,
        config: Any,
        backbone: nn.Module,
        family: Family,
        device: torch.device,
        group: Group,
        *,
        output: nn.Parameter | None = None,
        checkpointing: bool,
    ) -> None:
        """`output`: the layer that gives the words' logits, of a base that is to have it."""
        self.spec, self.config, self.family, self.device, self.group = spec, config, family, device, group
        self.parameters = sum(parameter.numel() for parameter in backbone.parameters())
        self.kernels = kernels(device, getattr(torch, spec.dtype))
        self.context = Context(device, varlen=self.kernels.attention == "varlen")
        self._checkpointing = checkpointing
        self.linears: dict[str, PackedLinear] = {}
        """By their names in the backbone: where an adapter may be."""
        self._pooler = backbone.get_submodule(family.pooler) if family.pooler else None
        self._head_weights: dict[str, Tensor] = {}
        """What of a head is in the checkpoint, by its name in the classification model."""
        if spec.trained and self._pooler is not None:
            self.family = family.with_trained_pooler()
            names = self._pooler.state_dict()
            self._head_weights = {f"{family.prefix}.{family.pooler}.{name}": names[name].clone() for name in names}
            self._pooler = None
        if hasattr(backbone, "pooler"):
            # It takes the first token only; ours pools every sequence.
            setattr(backbone, "pooler", None)  # noqa: B010  # mypy knows a module's attributes as modules
        if spec.beside and isinstance(group, Workers):
            raise TunerError("seats that train beside a base need it whole: one worker")
        self._backbone = backbone.requires_grad_(False)
        self._output: Tensor | None = None
        if output is not None:
            tied = output is backbone.get_input_embeddings().weight  # type: ignore[operator]  # transformers'
            self.parameters += 0 if tied else output.numel()
            # Words' embeddings that are sharded are not there between two forwards.
            alone = not isinstance(group, Workers) or spec.trained
            self._output = None if tied and alone else output.detach().clone().to(device)
        if checkpointing:
            recompute(layers_of(backbone), self.context)
        if isinstance(group, Workers) and not spec.trained:
            # From the host's memory a share at a time: the whole base need not fit on one device.
            self._wrap(torch.device("cpu"))
            shard(self._backbone, group.mesh(device))
            self.context.uniform = True
        else:
            self._wrap(device)
            self._backbone.to(device)
        self._backbone.eval()
        self._beside: Beside | None = None
        if spec.beside:
            self._beside = self._with_sides()
        else:
            self._find_pooled_only()
        if self._pooler is not None:
            self._pooler.requires_grad_(False).to(device)

    @classmethod
    def load(
        cls,
        spec: BaseSpec,
        device: str | torch.device = "cpu",
        *,
        group: Group | None = None,
        checkpointing: bool = False,
    ) -> Base:
        """Load and freeze; sharded over the workers of a group, each of which calls this.

        With `checkpointing` a layer's activations are computed again in its backward instead of kept.
        Raises TunerError for a model that is not there, lacks weights, or cannot be packed.
        """
        try:
            config = AutoConfig.from_pretrained(spec.folder, revision=spec.revision)
            family = family_of(config.model_type)
            # Weights that the checkpoint lacks are drawn from the global stream: leave that as it was.
            with torch.random.fork_rng(devices=[]):
                model, report = _kind(family, spec).from_pretrained(
                    spec.folder, revision=spec.revision, dtype=getattr(torch, spec.dtype), output_loading_info=True
                )
        except (OSError, ValueError) as error:
            raise TunerError(f"cannot load the model {spec.folder!r}: {error}") from error
        family = _checked(family, sorted(report["missing_keys"]), spec)
        backbone = getattr(model, family.prefix) if spec.language else model
        backbone.set_attn_implementation(NAME)
        output = model.get_output_embeddings().weight if spec.language else None
        return cls(
            spec,
            config,
            backbone,
            family,
            torch.device(device),
            group or Group(),
            output=output,
            checkpointing=checkpointing,
        )

    def head(self, spec: HeadSpec) -> SeatHead:
        """What a seat predicts with. Raises SeatError where this base cannot."""
        if spec.kind != "generation":
            return Head(spec, self.family, self.config, self._head_weights)
        if not self.spec.language:
            raise SeatError("a seat that generates needs a base with its output layer (`language`)")
        return LanguageHead(spec, self._words, own=self.spec.trained and self._output is not None)

    def _words(self) -> Tensor:
        """[V, I] the output layer: the embeddings where the model has them in common."""
        if self._output is not None:
            return self._output
        words: Tensor = self._backbone.get_input_embeddings().weight  # type: ignore[operator]  # transformers'
        return words

    @cached_property
    def weights(self) -> Weights:
        """For the seat of a base that is `trained`."""
        assert self.spec.trained, "this base is frozen"
        return Weights(self._backbone)

    @property
    def other_linears(self) -> tuple[str, ...]:
        """Names in the classification model of the linear layers where no adapter may be: pooler and head."""
        pooler = (f"{self.family.prefix}.{self.family.pooler}",) if self.family.pooler else ()
        return (*pooler, *(layer.path for layer in self.family.head))

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.family.pool == "last"

    @property
    def first_position(self) -> int:
        """The position of a sequence's first token."""
        return int(self.config.pad_token_id) + 1 if self.family.positions_after_padding else 0

    @property
    def longest(self) -> int:
        """Tokens that a sequence may have."""
        return int(self.config.max_position_embeddings) - self.first_position

    @property
    def trained_dtype(self) -> torch.dtype:
        """Of adapters, heads, their gradients and moments."""
        return torch.float64 if self.spec.dtype == "float64" else torch.float32

    @property
    def activation_bytes(self) -> int:
        """An estimate of what one token keeps in memory from forward to backward."""
        layers, hidden = int(self.config.num_hidden_layers), int(self.config.hidden_size)
        inner = int(getattr(self.config, "intermediate_size", 4 * hidden))
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        layer = 10 * hidden + 3 * inner
        return (layers * hidden + layer if self._checkpointing else layers * layer) * dtype.itemsize

    @property
    def states_bytes(self) -> int:
        """Of a token's states, which networks beside the base read: as they come, and laid out for the networks."""
        layers, dtype = int(self.config.num_hidden_layers), getattr(torch, self.spec.dtype)
        return 2 * (layers + 1) * int(self.config.hidden_size) * dtype.itemsize if self.spec.beside else 0

    def recomputed_bytes(self, token: float) -> float | None:
        """What a token would keep, of now `token`, with gradient checkpointing; None: it is so, or nothing to gain.

        The layers' inputs, and all of the one layer that is computed again.
        """
        if self._checkpointing or self.spec.beside:
            return None
        layers, dtype = int(self.config.num_hidden_layers), getattr(torch, self.spec.dtype)
        return float(layers * int(self.config.hidden_size) * dtype.itemsize + token / layers)

    @property
    def quantised_bytes(self) -> int | None:
        """What `held_bytes` would be in 4 bits; None: it is so already, or every weight is trained."""
        kept_whole = self.spec.quantisation == "none" or self.spec.dequantised_once
        if self.spec.trained or not kept_whole:
            return None
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        weights = sum(layer.in_features * layer.out_features for layer in self.linears.values()) // self.group.size
        return self.held_bytes - round(weights * (dtype.itemsize - NF4_BYTES))

    @property
    def adapter_parameters(self) -> int:
        """Roughly those of an adapter with LoRA's default rank and targets."""
        return int(self.config.num_hidden_layers) * 2 * 8 * 2 * int(self.config.hidden_size)

    @property
    def held_bytes(self) -> int:
        """Of the base in this worker's memory between two forwards."""
        storages = [tensor.untyped_storage() for tensor in self.tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @property
    def tensors(self) -> list[Tensor]:
        """The parameters and buffers in this worker's memory."""
        extra = [] if self._output is None else [self._output]
        return [*local_tensors(self._backbone), *extra, *([] if self._pooler is None else local_tensors(self._pooler))]

    @property
    def cache_bytes(self) -> int:
        """What a token keeps in memory for those that follow it."""
        heads = int(getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads)
        size = int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)
        dtype: torch.dtype = getattr(torch, self.spec.dtype)
        return 2 * int(self.config.num_hidden_layers) * heads * size * dtype.itemsize

    def laid_out(self, seats: Sequence[Rows]) -> Layout:
        """The seats' sequences end to end, as this base wants them."""
        return lay_out(seats, causal=self.causal, first_position=self.first_position, device=self.device)

    def idle(self, *, training: bool) -> None:
        """Go along with the other workers' forward (and backward, if `training`) without a row of any seat."""
        rows = training_rows([_NOTHING], seed=0, step=0, first=0) if training else Rows([_NOTHING], None)
        pooled_1I = self.pooled(self.laid_out([rows]), {}, training=training)
        if training:
            pooled_1I.backward(torch.zeros_like(pooled_1I))  # type: ignore[no-untyped-call]  # torch's backward is untyped

    def pooled(self, layout: Layout, trained: Trained, *, training: bool, cache: Cache | None = None) -> Tensor:
        """[P, I] the states that the heads read; with gradients and dropout if `training`.

        With a cache, those of prompts or of the tokens that follow what is in it.
        """
        if isinstance(trained, tuple):
            assert self._beside is not None, "this base has nothing beside it"
            pooled = self._normed(self._beside.pooled(layout, trained, cache))
        else:
            if self._backbone.training != training:
                self._backbone.train(training)
            pooled = self._states(layout, trained, cache).index_select(0, layout.pooled)
        if cache is not None:
            cache.advance()
        return pooled if self._pooler is None else torch.tanh(self._pooler(pooled))

    def other_seats(self) -> None:
        """A seat has come or gone."""
        if self._beside is not None:
            self._beside.kept.other_seats()

    def _with_sides(self) -> Beside:
        def run(layout: Layout, cache: Cache | None) -> None:
            self._states(layout, {}, cache)

        return Beside(
            layers_of(self._backbone),
            self.context,
            run,
            self.laid_out,
            causal=self.causal,
            most_bytes=self.spec.kept_bytes,
        )

    def _normed(self, states_PI: Tensor) -> Tensor:
        """[P, I] after the layer that follows the last one."""
        if not self.family.norm:
            return states_PI
        normed: Tensor = self._backbone.get_submodule(self.family.norm)(states_PI)
        return normed

    def _states(self, layout: Layout, slots: SlotsBySite, cache: Cache | None = None) -> Tensor:
        """[T, I] of which only the pooled tokens are right."""
        extra: dict[str, Any] = {"token_type_ids": layout.types} if self.family.token_types else {}
        if self.causal:
            extra["use_cache"] = False
        with self.context.running(layout, slots, cache):
            out = self._backbone(input_ids=layout.ids, position_ids=layout.positions, **extra)
        states: Tensor = out.last_hidden_state[0]
        return states

    def _wrap(self, device: torch.device) -> None:
        """Replace the linear and dropout layers; number every module in the model's own order."""
        prepare(self._backbone, self.context)
        weight_of = _weights(self.spec)
        for index, (name, module) in enumerate(list(self._backbone.named_modules())):
            new: nn.Module
            if isinstance(module, nn.Linear):
                new = PackedLinear(name, index, module, weight_of(module, device), self.context)
                self.linears[name] = new
            elif isinstance(module, nn.Dropout):
                new = PackedDropout(index, module.p, self.context)
            else:
                continue
            self._backbone.set_submodule(name, new)

    def _find_pooled_only(self) -> None:
        """After the last attention each token is on its own, and only the pooled ones count: mark those layers."""
        with torch.no_grad(), self.context.tracing() as calls:
            self._states(self.laid_out([Rows([_NOTHING], None)]), {})
        last_attention = max(place for place, layer in enumerate(calls) if layer is None)
        for layer in calls[last_attention:]:
            if isinstance(layer, PackedLinear):
                layer.pooled_only = True


def _weights(spec: BaseSpec) -> Any:
    """How a linear layer's weight is kept: (layer, device) -> Weight."""
    if spec.quantisation == "none":
        return lambda linear, device: DenseWeight(linear.weight.data.to(device))
    # Only a quantised base needs bitsandbytes.
    from tuners.engine.nf4 import Buffer, Nf4Weight

    buffer, double = Buffer(), spec.quantisation == "nf4-double"

    def quantised(linear: nn.Linear, device: torch.device) -> Weight:
        weight = Nf4Weight(linear.weight.data.to(device), buffer, double=double)
        return DenseWeight(weight.dense().clone()) if spec.dequantised_once else weight

    return quantised


def _kind(family: Family, spec: BaseSpec) -> Any:
    """The class to load. Raises TunerError for a model that cannot generate."""
    if not spec.language:
        return AutoModel
    if family.pool != "last":
        raise TunerError(f"the model {spec.folder!r} is an encoder: it has classes and values, and generates nothing")
    return AutoModelForCausalLM


def _checked(family: Family, missing: list[str], spec: BaseSpec) -> Family:
    """The family as this checkpoint has it."""
    pooler = [name for name in missing if family.pooler and name.startswith(family.pooler)]
    unused = [name for name in missing if not family.pooler and name.startswith("pooler.")]
    others = [name for name in missing if name not in pooler and name not in unused]
    if others:
        raise TunerError(f"the model {spec.folder!r} lacks weights: {', '.join(others[:5])}")
    return family.with_trained_pooler() if pooler else family
