import numpy as np
import pytest

from orchestrator.analysis.detectors import Budget, Judgement
from orchestrator.pictures import draw
from tests.analysis.judging import point, scenario, trace
from tests.pictures.legibility import offences


def test_a_detector_without_mistakes_is_drawn_at_its_bound():
    """A setting without mistakes is a hollow mark where six mistakes would be."""
    judgement = Judgement(scenario(), [trace({"w1": [1.0]}, 3.0)], [point(2, 9), point(5, 0)], Budget(5, 6))
    figure = draw(judgement)["detectors"]
    axes, accuracy = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("n = 0 in the trace" in text for text in legend), "of the recommended one"
    assert offences(figure) == []
    assert "n = 100 crashes" in "".join(text.get_text() for text in figure.texts)
    hollow = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [xy.tolist() for xy in hollow if xy.size] == [[pytest.approx([5, 6.0])]]
    for panel in (axes, accuracy):
        assert panel.get_xlabel()
        assert panel.get_ylabel()
