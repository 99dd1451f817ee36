"""Pictures of results: plots and the Perfetto trace.

    draw(result)            the figures of any result, by name; a notebook shows them
    draw(result, folder)    and they are saved there

To put a curve into axes of your own, call a function `draw_...(axes, ...)` of `distributions`, `timelines` or
`run_plots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.analysis.comparison import Comparison
from orchestrator.analysis.detectors import Judgement
from orchestrator.analysis.fidelity import Fidelity
from orchestrator.pictures import comparison_plots, detector_plots, perfetto, run_plots, sweep_plots
from orchestrator.pictures.style import Figures
from orchestrator.results import manifests
from orchestrator.results.folders import TRACE
from orchestrator.results.runs import Run, Sweep
from orchestrator.scenario.arguments import require

__all__ = ["Drawable", "Figures", "draw"]

Drawable = Run | Sweep | Comparison | Fidelity | Judgement | Mapping[str, Run | Sweep]
"""A mapping gives runs or sweeps by their labels, to be drawn in the same axes."""


def draw(result: Drawable, folder: str | Path | None = None) -> Figures:
    """The figures of a result, by name.

    With `folder`, each figure is saved there as PNG and SVG, and the Perfetto trace of a single run as `trace.json`.
    """
    figures = _figures(result)
    if folder is not None:
        figures.save(folder)
        if isinstance(result, Run):
            with manifests.writing(Path(folder), [TRACE]):
                perfetto.write(Path(folder) / TRACE, result.tables, result.scenario)
    return figures


def _figures(result: Drawable) -> Figures:
    match result:
        case Run():
            return run_plots.of_run(result)
        case Sweep():
            return run_plots.of_replications(result) if len(result.cells) == 1 else sweep_plots.of_sweep(result)
        case Comparison():
            return comparison_plots.of_comparison(result)
        case Fidelity():
            return comparison_plots.of_fidelity(result)
        case Judgement():
            return detector_plots.of_judgement(result)
        case _:
            kinds = "a Run, a Sweep, what analysis makes of them, or runs and sweeps by their labels"
            require("result", result, Mapping, kinds)
            return run_plots.of_several(result)
