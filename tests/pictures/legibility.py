"""What keeps a reader from reading a picture, found in the artists of the figure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.5
"""Pixels by which letters may stand over."""


def offences(figure: Figure) -> list[str]:
    """One sentence for each text or legend that is cut, that stands on another, and for data outside of the limits.

    A logarithmic axis has no zero: a line that leaves it downwards is right.
    """
    figure.draw_without_rendering()
    return [*_cut(figure), *_on_one_another(figure), *_outside_of_limits(figure)]


def legends(figure: Figure) -> list[Legend]:
    return [*figure.legends, *(one for axes in figure.axes if (one := axes.get_legend()))]


def _cut(figure: Figure) -> Iterator[str]:
    whole = figure.bbox.padded(SLACK)
    for text in _texts(figure):
        if not _within(text.get_window_extent(), whole):
            yield f"{text.get_text()!r} is cut by the edge of the figure"
    for legend in legends(figure):
        if not _within(legend.get_window_extent(), whole):
            yield f"the legend of {legend.get_texts()[0].get_text()!r} is cut"


def _on_one_another(figure: Figure) -> Iterator[str]:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [(label.get_text(), label.get_window_extent()) for label in _tick_labels(axis)]
            labels.sort(key=lambda both: (both[1].x0, both[1].y0))
            for (one, here), (other, there) in itertools.pairwise(labels):
                if _overlap(here, there):
                    yield f"the ticks {one!r} and {other!r} stand on one another"
    big = {f"legend {number}": one.get_window_extent() for number, one in enumerate(figure.legends)}
    for text in figure.texts:
        if text.get_text():
            big[f"text {text.get_text()[:30]!r}"] = text.get_window_extent()
    for number, axes in enumerate(figure.axes):
        if (extent := axes.get_tightbbox()) is not None:
            big[f"axes {number}"] = Bbox(extent.get_points())
    for (one, here), (other, there) in itertools.combinations(big.items(), 2):
        if _overlap(here, there):
            yield f"{one} and {other} stand on one another"


def _outside_of_limits(figure: Figure) -> Iterator[str]:
    for number, axes in enumerate(figure.axes):
        for x, y in _data(axes):
            for values, axis in ((x, axes.xaxis), (y, axes.yaxis)):
                known = values[np.isfinite(values) & ((values > 0) | (axis.get_scale() != "log"))]
                low, high = sorted(axis.get_view_interval())
                slack = 1e-6 * (high - low)
                if len(known) and (known.min() < low - slack or known.max() > high + slack):
                    ends = f"{known.min():g} and {known.max():g}"
                    yield f"axes {number} end at {low:g} and {high:g}, their data at {ends}"


def _data(axes: Axes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            x, y = np.asarray(line.get_xydata(), dtype=np.float64).reshape(-1, 2).T
            yield x, np.where(np.isnan(x), np.nan, y)
    for patch in axes.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            yield np.asarray(edges, dtype=np.float64), np.asarray(values, dtype=np.float64)


def _texts(figure: Figure) -> list[Text]:
    unseen = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if label not in _tick_labels(axis)
    }
    every = figure.findobj(lambda one: isinstance(one, Text) and one.get_visible() and bool(one.get_text().strip()))
    return [one for one in every if isinstance(one, Text) and id(one) not in unseen]


def _tick_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    slack = 1e-9 * (high - low)
    ticks = [tick for tick in axis.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack]
    return [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]


def _within(inner: Bbox, outer: Bbox) -> bool:
    return bool(np.all(np.array(inner.min) >= outer.min) and np.all(np.array(inner.max) <= outer.max))


def _overlap(one: Bbox, other: Bbox) -> bool:
    return bool((np.minimum(one.max, other.max) - np.maximum(one.min, other.min) > SLACK).all())
