import itertools

import pytest

from orchestrator.scenario.sweeps import names
from orchestrator.scenario.titles import cell_title, readable, table_value, value_title

CRASH = {"kind": "crash", "at_s": 10, "workers": ["w3"], "restart_after_s": 5.0}
FAULTS = [
    [],
    [CRASH],
    [CRASH | {"restart_after_s": 6}],
    [{"kind": "crash", "at_s": 10, "workers": ["w3"]}],
    [{"kind": "crash", "every_s": 10, "group": "rack"}],
    [{"kind": "slow", "mtbf_s": 60, "all": True, "for_s": {"kind": "exponential", "mean_s": 3}, "factor": 0.1}],
    [CRASH, {"kind": "coordinator_pause", "at_s": 1.5, "for_s": 2}],
]


def test_a_structure_has_a_short_name():
    """Kinds, whole numbers, lists and nothing read as people write them."""
    assert readable({"kind": "power_of_d", "d": 2}) == "power_of_d d=2"
    assert readable({"kind": "constant", "value_s": 2.0}) == "constant value_s=2"
    assert readable([1.5, 3]) == "1.5 + 3"
    assert (readable(None), readable([]), readable(7.0)) == ("none", "none", 7)


def test_faults_read_as_a_sentence():
    """What, whom, when, and what then; nothing is `no fault`."""
    assert [value_title("faults", value) for value in FAULTS] == [
        "no fault",
        "crash of w3 at 10 s, back after 5 s",
        "crash of w3 at 10 s, back after 6 s",
        "crash of w3 at 10 s",
        "crash of rack every 10 s",
        "slow of all every 60 s on average, for_s=exponential mean_s=3, factor=0.1",
        "crash of w3 at 10 s, back after 5 s + coordinator pause at 1.5 s, for 2 s",
    ]


@pytest.mark.parametrize("key", ["faults", "policies.routing"])
def test_different_values_have_different_names(key):
    """However much two faults have in common, their names differ."""
    for one, other in itertools.combinations(FAULTS, 2):
        assert value_title(key, one) != value_title(key, other)


def test_a_cell_is_called_by_its_values():
    """By each value after its key; nothing says of what."""
    assert cell_title({"policies.detection.timeout_s": 10}) == "timeout_s=10"
    assert cell_title({"policies.routing": {"kind": "power_of_d", "d": 2}}) == "routing=power_of_d d=2"
    assert cell_title({"policies.hedging": {"quantile": 0.9, "budget": 0.1}}) == "hedging quantile=0.9 budget=0.1"
    assert cell_title({"policies.hedging": None, "faults": []}) == "no hedging, no fault"
    assert cell_title({"policies.execution_timeout_s": None}) == "no execution timeout"
    assert cell_title({"cluster.workers": 4, "policies.queue": {"kind": "fifo"}}) == "workers=4, queue=fifo"
    assert cell_title({"all": True}) == "all=true"
    assert cell_title({}) == ""


def test_folders_keep_their_names():
    """What people call a cell changes nothing in the names that stand on the disk."""
    assert names([{"faults": []}, {"faults": [CRASH]}]) == [
        "faults=",
        "faults=crash-at_s=10-workers=w3-restart_after_s=5.0",
    ]


def test_a_number_stays_one_in_a_table():
    """A column of numbers can be computed with; one of faults has their names."""
    assert table_value("policies.detection.timeout_s", 2.5) == 2.5
    assert table_value("faults", []) == "no fault"
