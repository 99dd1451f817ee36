"""The style of all pictures, and the figures that have it.

Figures need no window, use no global state of matplotlib and give the same bytes for the same values.
"""

from __future__ import annotations

import base64
import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from orchestrator.results import manifests

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "savefig.dpi": 130,
    "svg.hashsalt": "orchestrator",
}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6a51a3", "#555555")
"""After Okabe and Ito: colour-blind readers can tell them apart too."""
MARKERS = "osD^vP*X"
GREY = "#777777"
LETTER, HANDLE = 0.058, 0.6
"""Inches that a letter of a legend takes, and what stands before its text."""

_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}

P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """What `draw` creates has this style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> T:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return drawing


class Plot(Figure):
    """A figure that a notebook shows, whatever the notebook's settings are."""

    @styled
    def rendered(self, kind: str) -> bytes:
        """The bytes of a `png` or an `svg` file."""
        if self.get_layout_engine():
            self.draw_without_rendering()
            self.set_layout_engine(None)  # a second layout would move everything by a hair
        data = io.BytesIO()
        self.savefig(data, format=kind, metadata=_METADATA[kind])
        return data.getvalue()

    def _repr_png_(self) -> bytes:
        return self.rendered("png")


class Figures(dict[str, Plot]):
    """Figures by name; a notebook shows them all."""

    def save(self, folder: str | Path) -> None:
        """Write each figure as `name.png` and `name.svg` into `folder`, which is made if it does not exist.

        Pictures that were drawn there before are replaced. Raises RunFolderError for other files of these names.
        """
        files = {f"{name}.{kind}": (figure, kind) for name, figure in self.items() for kind in _METADATA}
        with manifests.writing(Path(folder), files):
            for name, (figure, kind) in files.items():
                (Path(folder) / name).write_bytes(figure.rendered(kind))

    def _repr_html_(self) -> str:
        images = (base64.b64encode(figure.rendered("png")).decode() for figure in self.values())
        return "\n".join(f'<img src="data:image/png;base64,{image}"/>' for image in images)


def new_figure(
    title: str, setting: str, size: tuple[float, float], rows: int = 1, columns: int = 1, **grid: Any
) -> tuple[Plot, list[Axes]]:
    """A figure with a bold title and a grey line `setting` at its foot, and its axes, row by row."""
    figure = Plot(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    figure.suptitle(textwrap.fill(title, int(10 * size[0])), x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(textwrap.fill(setting, int(15 * size[0])), x=0.01, ha="left", fontsize=7.5, color=GREY)
    return figure, list(axes.flat)


def colors(count: int) -> list[str]:
    """So many colours, which repeat if there are too few."""
    return [COLORS[index % len(COLORS)] for index in range(count)]


def legend_above(axes: Axes, handles: Sequence[Any] | None = None, columns: int = 5) -> None:
    """A legend between the title and the axes, where it covers nothing."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    if handles:
        inches = max(len(str(handle.get_label())) for handle in handles) * LETTER + HANDLE
        columns = max(1, min(len(handles), columns, int(axes.figure.bbox.width / axes.figure.dpi / inches)))
        axes.legend(handles=list(handles), ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3)


def legend_beside(figure: Plot, handles: Sequence[Any]) -> None:
    """One legend for all axes of a figure, to the right of them."""
    if handles:
        figure.legend(handles=list(handles), loc="outside right upper")


def note(axes: Axes, text: str) -> None:
    """Write into the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def count_axis(axes: Axes, label: str, highest: float) -> None:
    """Make the y axis one of counts, from 0 to `highest`, and at least to 1."""
    axes.set(ylabel=label, ylim=(0, max(highest, 1.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def seconds(value: float, _: Any = None) -> str:
    """A duration in readable units: `350 µs`, `50 ms`, `1.2 s`, `12 min`, `3 h`."""
    size = abs(value)
    for unit, length, below in (("µs", 1e-6, 1e-3), ("ms", 1e-3, 1.0), ("s", 1.0, 600.0), ("min", 60.0, 36000.0)):
        if size < below * 0.99999:
            return f"{value / length:.3g} {unit}" if value else "0"
    return f"{value / 3600:.4g} h"


def seconds_axis(axes: Axes, which: str, values: Any) -> None:
    """Make an axis one of durations: from 0, or logarithmic if its values span more than a factor of 20."""
    values = np.asarray(values, dtype=np.float64)
    positive = values[np.isfinite(values) & (values > 0)]
    axis = axes.xaxis if which == "x" else axes.yaxis
    if len(positive) and positive.max() > 20 * positive.min():
        axes.set(**{f"{which}scale": "log"})
        subdivisions = (1, 2, 5) if positive.max() < 1000 * positive.min() else (1,)
        axis.set_major_locator(LogLocator(subs=subdivisions, numticks=12))
        axis.set_minor_formatter(NullFormatter())
    else:
        top = max(getattr(axes, f"get_{which}lim")()[1], 1.05 * positive.max(initial=0.0))  # no marker is cut in half
        axes.set(**{f"{which}lim": (0, top)})
    axis.set_major_formatter(FuncFormatter(seconds))
