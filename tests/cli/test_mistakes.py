"""What a terminal and a notebook say of healthy workers that were declared dead."""

import pytest

from orchestrator.cli.views import print_cells, print_summary
from orchestrator.results.runs import CellRuns, Run, Sweep
from tests.results.synthetic import run, scenario, tables, task


def mistaken(rule: str) -> Run:
    """w1 is declared dead for 10 s of 100 s, and works all the while."""
    events = [(0.0, "up", 0, "registered"), (30.0, "dead", 0, rule), (40.0, "up", 0, "revived")]
    return run(tables([task(20.0, 100.0)], events=events))


@pytest.mark.parametrize(
    ("rule", "more"),
    [("detector", "; by the detector 864 a worker and day, wasted 0 s, query accuracy 90.0000%"), ("failed_call", "")],
)
def test_a_mistake_is_told_whatever_the_rule(rule: str, more: str, capsys: pytest.CaptureFixture[str]):
    """Of the detector's also what they cost."""
    made = mistaken(rule)
    print_summary(made.summary)
    assert f"mistakes    healthy workers declared dead 1 time{more}\n" in capsys.readouterr().out
    shown = made._repr_html_()
    assert '<th scope="col">mistakes</th>' in shown
    assert shown.endswith("<td>0</td><td>0</td><td>1</td></tr></tbody></table>")


def test_cells_show_their_mistakes(capsys: pytest.CaptureFixture[str]):
    """A column of them, if there are any."""
    cells = [CellRuns.of(rule, {"seed": rule}, {0: mistaken(rule)}) for rule in ("detector", "failed_call")]
    print_cells(Sweep(scenario(), cells).summary)
    title, *rows = [line for line in capsys.readouterr().out.splitlines() if "mistakes" in line or "seed=" in line]
    place = title.index("mistakes") + len("mistakes") - 1
    assert [row[place] for row in rows] == ["1", "1"]
