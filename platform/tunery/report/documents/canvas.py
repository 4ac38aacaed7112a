"""What the pictures share: a grid of panels, colours that the colour-blind can tell apart, and a figure as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's, with the yellow last: it is faint on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#b8a800")
FAINT = "#c4c4c4"
MOST_PANELS = 60
"""Of a picture: a taller one is shown by few programs."""
# Matplotlib's types know each key of a mapping that is written out, and no mapping with a name.
STYLE: Any = {
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "axes.formatter.useoffset": False,
}


def grid(panels: int, *, columns: int, size: tuple[float, float] = (4.6, 3.4)) -> tuple[Figure, Sequence[Axes]]:
    """A figure of so many panels, each `size` inches; the axes row by row."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(max(6.4, size[0] * columns), size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.set_visible(False)
    return figure, axes[:panels]


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def legend(figure: Figure, axes: Axes) -> None:
    """Of one panel, which stands for all, below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        room = figure.get_figwidth() / (0.8 + 0.095 * max(map(len, labels)))
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(len(labels), int(room))))


def png(figure: Figure) -> bytes:
    """The figure; the same one gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return content.getvalue()
