"""Networks beside the base (side-tuning): the base runs forward only, once for all seats that read the same sequences.

A sequence is known by its tokens, so that seats share what they have in common, whatever their data is called: the
base runs on each sequence of a step once, and not again where its states have been kept.
"""

# L layers, S seats, T tokens, P pooled tokens, I in, H heads, D elements a head

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuners.engine.attention import attend
from tuners.engine.cache import Cache
from tuners.engine.context import Context
from tuners.engine.layout import Layout, Rows
from tuners.engine.slots import Side, Sides
from tuners.engine.types import AnyExample

_SITES = 1 << 21
"""Above the numbers of a backbone's modules and of a head's layers."""

_Key = tuple[bytes, bytes]


class Kept:
    """States of sequences, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._states: dict[_Key, Tensor] = {}
        self._stale: dict[_Key, None] = {}
        """Not used since the seats have changed."""

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: _Key) -> Tensor | None:
        """[L + 1, T, I]"""
        self._stale.pop(key, None)
        return self._states.get(key)

    def put(self, key: _Key, states: Tensor) -> None:
        """Keep a copy, where there is room: what other seats have left behind makes some.

        What the present seats read goes round in epochs, so that to put the newest in the place of the oldest would
        lose each shortly before it is read again.
        """
        size = states.numel() * states.element_size()
        while self._bytes + size > self._most and self._stale:
            gone = self._states.pop(self._stale.popitem()[0])
            self._bytes -= gone.numel() * gone.element_size()
        if self._bytes + size <= self._most:
            self._states[key] = states.clone()
            self._bytes += size

    def other_seats(self) -> None:
        """A seat has come or gone."""
        self._stale = dict.fromkeys(self._states)


class Beside:
    """Belongs to one base, whose forward it runs."""

    def __init__(
        self,
        layers: nn.ModuleList,
        context: Context,
        run: Callable[[Layout, Cache | None], object],
        laid_out: Callable[[Sequence[Rows]], Layout],
        *,
        causal: bool,
        most_bytes: int,
    ) -> None:
        """`run` calls the backbone on a layout; `most_bytes` of its states are kept."""
        self.kept = Kept(most_bytes)
        self._context, self._run, self._laid_out, self._causal = context, run, laid_out, causal
        self._taken: list[Tensor] | None = None
        layers[0].register_forward_pre_hook(self._take_input)
        for layer in layers:
            layer.register_forward_hook(self._take_output)

    def pooled(self, layout: Layout, sides: Sides, cache: Cache | None) -> Tensor:
        """[P, I] what the seats' networks make of the pooled tokens, with gradients where they are asked for."""
        if cache is not None:
            (side,) = sides  # each seat goes on with words of its own
            return self._together([side], self._states(layout, cache), layout, cache)[0]
        found = self._found(layout)
        groups: dict[object, list[int]] = {}
        for place, (side, rows) in enumerate(zip(sides, layout.rows, strict=True)):
            if rows.examples:
                # Where an answer begins, the label says.
                begins = tuple(example.label for example in rows.examples) if rows.answers else ()
                same = (type(side), side.kind, begins, *map(content, rows.examples))
                groups.setdefault(same, []).append(place)
        outputs: dict[int, Tensor] = {}
        for places in groups.values():
            rows = layout.rows[places[0]]
            own = self._laid_out([Rows(rows.examples, None, rows.answers)])
            parts = [found[content(example)] for example in rows.examples]
            filler = parts[0].new_zeros(parts[0].shape[0], own.fillers.shape[0], parts[0].shape[2])
            states = torch.cat([*parts, filler], 1).unbind()
            outputs |= zip(places, self._together([sides[place] for place in places], states, own, None), strict=True)
        return torch.cat([_filled(outputs[place], layout, place) for place in sorted(outputs)])

    def _together(self, sides: Sequence[Side], states: Sequence[Tensor], layout: Layout, cache: Cache | None) -> Tensor:
        """[S, P, I]"""
        with self._context.running(layout, {}, cache):
            return type(sides[0]).together(sides, states, self._attend, layout.pooled)

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q_1HTD, k_1HTD, v_1HTD = query[None], key[None], value[None]
        scale = query.shape[2] ** -0.5
        out_1THD = attend(self._context, _SITES + layer, q_1HTD, k_1HTD, v_1HTD, causal=self._causal, scale=scale)
        return out_1THD[0].transpose(0, 1)

    def _found(self, layout: Layout) -> dict[_Key, Tensor]:
        """[L + 1, T, I] of each sequence that is read."""
        wanted = {content(example): example for rows in layout.rows for example in rows.examples}
        found = {key: states for key in wanted if (states := self.kept.get(key)) is not None}
        missing = {key: example for key, example in wanted.items() if key not in found}
        if missing:
            examples = list(missing.values())
            states_LTI = torch.stack(self._states(self._laid_out([Rows(examples, None)]), None))
            lengths = [len(example.ids) for example in examples]
            parts = torch.split(states_LTI[:, : sum(lengths)], lengths, 1)
            for key, part in zip(missing, parts, strict=True):
                found[key] = part
                self.kept.put(key, part)
        return found

    def _states(self, layout: Layout, cache: Cache | None) -> list[Tensor]:
        """L + 1 of [T, I]: the embeddings, and what each layer makes of them."""
        with torch.no_grad(), self._taking() as taken:
            self._run(layout, cache)
        return taken

    @contextmanager
    def _taking(self) -> Iterator[list[Tensor]]:
        self._taken = []
        try:
            yield self._taken
        finally:
            self._taken = None

    def _take_input(self, _layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._taken is not None:
            self._taken.append(inputs[0][0])

    def _take_output(self, _layer: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if self._taken is not None:
            self._taken.append((output[0] if isinstance(output, tuple) else output)[0])


def content(example: AnyExample) -> _Key:
    """What the base reads of it."""
    return example.ids.tobytes(), b"" if example.types is None else example.types.tobytes()


def _filled(own_PI: Tensor, layout: Layout, seat: int) -> Tensor:
    """What a seat reads, which was computed in a layout of its own, as wide as its part of this one."""
    (start, read), (_, end) = layout.read_spans[seat], layout.pooled_spans[seat]
    return functional.pad(own_PI[: read - start], (0, 0, 0, end - read))
