"""The style of all pictures, and the figures that have it.

Figures need no window, use no global state of matplotlib and give the same bytes for the same values.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from orchestrator.results import manifests
from orchestrator.results.tables import Floats

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#555555")
"""After Okabe and Ito: colour-blind readers can tell them apart too."""
MARKERS = "osD^vP*X"
Color = str | tuple[str, float]
"""A tuple has its opacity."""
Dashes = str | tuple[float, tuple[float, ...]]
DASHES: tuple[Dashes, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Of another number than the colours, so that a colour comes again with other dashes."""
GREY, GRID = "#777777", "#dddddd"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "legend.frameon": True,  # its background keeps what is behind it from crossing its words
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.6,  # long enough for a dash pattern
    "lines.linewidth": 1.6,
    "savefig.dpi": 130,
    "svg.hashsalt": "orchestrator",
}
PAD = 0.06
"""Inches that stand around a title and a legend."""

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
    words = textwrap.fill(title, int(10 * size[0]))
    figure.suptitle(words, x=0.01, y=1, va="top", ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(_in_lines(setting, int(15 * size[0])), x=0.01, ha="left", fontsize=7.5, color=GREY)
    _put_title(figure)
    return figure, list(axes.flat)


def _in_lines(setting: str, letters: int) -> str:
    """What belongs together, from one `;  ` to the next, stays in one line if it fits into one."""
    lines = [""]
    for part in setting.split(";  "):
        joined = f"{lines[-1]};  {part}" if lines[-1] else part
        if len(joined) <= letters:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(part, letters)
    return "\n".join(filter(None, lines))


@dataclass(frozen=True)
class Look:
    """How one of several curves is drawn. Later ones lie above and are thinner or have gaps, so that curves that
    coincide can all be seen."""

    color: str
    dashes: Dashes
    width: float
    marker: str
    size: float

    @property
    def line(self) -> dict[str, Any]:
        """For `plot`."""
        return {"color": self.color, "ls": self.dashes, "lw": self.width}

    @property
    def steps(self) -> dict[str, Any]:
        """For `stairs`, whose short pieces dashes would tear apart: the first are told by their widths alone."""
        return self.line if self.width < 1.5 else self.line | {"ls": "-"}

    @property
    def marked(self) -> dict[str, Any]:
        """For `plot`, of a line with a marker at each point."""
        return {**self.line, "marker": self.marker, "ms": self.size}


def pale(color: str) -> Color:
    """A colour to draw broadly under a thin line of the same colour."""
    return color, 0.35


def looks(count: int) -> list[Look]:
    """So many looks; no two are alike before the combinations of a colour, dashes and a marker repeat."""
    places = range(count)
    return [
        Look(
            COLORS[place % len(COLORS)],
            DASHES[place % len(DASHES)],
            1.6 if count == 1 else max(3.0 - 0.85 * place, 1.3),
            MARKERS[(place + place // len(COLORS)) % len(MARKERS)],
            5.0 if count == 1 else max(8.0 - place, 4.0),
        )
        for place in places
    ]


def legend_above(figure: Plot, handles: Sequence[Any], columns: int = 5) -> None:
    """One legend for all axes of a figure, below its title, which covers nothing: the figure grows by its height."""
    if not handles:
        return
    room, letters = figure.get_figwidth() - 2 * PAD, max(len(handle.get_label()) for handle in handles)
    for count in (*range(min(columns, len(handles)), 0, -1), *[1] * letters):
        legend = figure.legend(handles=list(handles), ncols=count, loc="upper left", borderaxespad=0)
        width, height = _inches(figure, legend)
        if width <= room:
            break
        legend.remove()
        if count == 1:
            letters = int(0.95 * letters * room / width)
            for handle in handles:
                handle.set_label(shortened(handle.get_label(), letters))
    figure.set_figheight(figure.get_figheight() + height)
    top = _put_title(figure, height + PAD)
    legend.set_bbox_to_anchor((0.005, top), transform=figure.transFigure)


def _put_title(figure: Plot, below: float = 0.0) -> float:
    """Put the title at the top, and the axes below it and below so many inches more; where the title ends."""
    whole, title = figure.get_figheight(), figure._suptitle  # type: ignore[attr-defined]
    title.set_y(1 - PAD / whole)
    end = PAD + _inches(figure, title)[1] + PAD
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(rect=(0, 0, 1, 1 - (end + below) / whole))  # type: ignore[call-arg]
    return 1 - end / whole


def _inches(figure: Plot, artist: Any) -> tuple[float, float]:
    extent = artist.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return float(extent.width / figure.dpi), float(extent.height / figure.dpi)


def legend_of(axes: Axes, columns: int = 5) -> None:
    """Of axes with handles: above them in a picture of ours; in axes of one's own, wherever it covers least."""
    if isinstance(axes.figure, Plot):
        legend_above(axes.figure, axes.get_legend_handles_labels()[0], columns)
    else:
        axes.legend()


def shortened(text: str, letters: int) -> str:
    """A text without its middle if it is longer than this; its ends tell most."""
    if len(text) <= letters:
        return text
    head = (letters - 3) * 2 // 3
    return f"{text[:head]}...{text[head + 3 - letters :]}"


def wrapped(text: str, letters: int, lines: int) -> str:
    """A text in at most so many lines; what is too long for them loses its middle."""
    broken = textwrap.wrap(text, letters)
    return "\n".join(broken if len(broken) <= lines else textwrap.wrap(shortened(text, (letters - 4) * lines), letters))


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
    if not len(positive):
        axis.set_ticks([])  # numbers would be about nothing
        return
    now = getattr(axes, f"get_{which}lim")()
    if positive.max() > 20 * positive.min():
        log_seconds_axis(axes, which, positive)
        margin = max(1.25, (positive.max() / positive.min()) ** 0.05)  # no line and no marker is cut in half
        ends = positive.min() / margin, positive.max() * margin
        low = min(now[0], ends[0]) if now[0] > 0 else ends[0]
        axes.set(**{f"{which}lim": (low, max(now[1], ends[1]))})
    else:
        axes.set(**{f"{which}lim": (0, max(now[1], 1.05 * positive.max()))})
        axis.set_major_locator(MaxNLocator(min(_room(axes, which) + 1, 8), steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(seconds))


def log_seconds_axis(axes: Axes, which: str, positive: Floats) -> None:
    """Make an axis a logarithmic one of durations, with as many ticks as have room, and at least two."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    span = positive.max() / positive.min() if len(positive) else 1.0
    room = _room(axes, which)
    if span < 4:
        axis.set_major_locator(MaxNLocator(room, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if 3 * math.log10(span) < room else (1,), numticks=room))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(seconds))


def _room(axes: Axes, which: str) -> int:
    """How many labels of ticks have room beside one another."""
    extent = axes.get_window_extent()
    inches = (extent.width if which == "x" else extent.height) / axes.figure.dpi
    return max(2, int(inches / (0.55 if which == "x" else 0.22)))
