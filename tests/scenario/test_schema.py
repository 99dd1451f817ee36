"""Scenarios: what loads, and what it means."""

# A case of a table is a line, however long.

from __future__ import annotations

import os
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestrator.policies.detection import PhiAccrualConfig, TimeoutConfig
from orchestrator.policies.queueing import PriorityConfig
from orchestrator.policies.retry import ConstantBackoff, ExponentialBackoff
from orchestrator.policies.routing import LeastLoadedConfig, PowerOfDConfig
from orchestrator.scenario import sweeps
from orchestrator.scenario.loading import parse, to_yaml
from orchestrator.scenario.run_settings import NAME_BYTES
from orchestrator.scenario.schema import Scenario, ScenarioError, json_schema
from tests.scenario.writing import ARRIVALS, BASE, SWEPT, load, problems, swap


def test_defaults_are_those_of_the_design(here):
    """Of a scenario that says no more than it must."""
    scenario = load("name: x\nduration_s: 1\nworkload:\n" + "\n".join(BASE.splitlines()[4:7]) + "\n")
    policies = scenario.policies
    assert (scenario.seed, scenario.warmup_s, scenario.drain_s, scenario.replications) == (0, 0, None, 1)
    assert scenario.workload.priorities.normal == 1
    assert (scenario.workload.tasks, scenario.workload.task) == (None, "sleep")
    [group] = scenario.cluster.groups
    assert (group.workers, group.capacity, group.prefetch, group.speed) == (2, 2, 0, 1)
    assert scenario.coordinator.cost_s == 0
    assert (scenario.network.delay.mean(), scenario.network.loss, scenario.network.duplicate) == (0, 0, 0)
    assert scenario.network.rpc_timeout_s == 2
    assert policies.routing == LeastLoadedConfig()
    assert policies.queue == PriorityConfig()
    assert policies.detection == TimeoutConfig(heartbeat_s=2, timeout_s=6, check_every_s=None, on_failed_call="hold")
    assert (policies.execution_timeout_s, policies.execution_check_every_s) == (None, None)
    assert (policies.retry.max_attempts, policies.retry.backoff) == (None, ConstantBackoff())
    assert (scenario.faults, scenario.sweep, scenario.live.workers_per_process, scenario.model) == ([], {}, 1, None)


def test_yaml_is_read_as_version_1_2(here):
    """`on` is text, 012 is twelve, and an alias stands for its value."""
    scenario = load(swap("name: base\nseed: 1", "name: on\nseed: 012"))
    assert (scenario.name, scenario.seed) == ("on", 12)
    aliased = swap("value_s: 0.1", "value_s: *it", swap("duration_s: 10", "duration_s: &it 10"))
    assert load(aliased).workload.service == load(swap("value_s: 0.1", "value_s: 10")).workload.service


def test_overrides_reach_mappings_that_the_file_lacks(here):
    """An absent mapping starts as the schema's default, so one parameter can be changed alone."""
    scenario = load(BASE, "policies.retry.backoff.delay_s=3", "network={loss: 0.5}", "policies.queue.kind=fifo")
    assert scenario.policies.retry.backoff == ConstantBackoff(delay_s=3)
    assert scenario.network.loss == 0.5
    assert scenario.policies.queue.kind == "fifo"


def test_a_new_kind_drops_what_it_does_not_know(here):
    """And keeps what both kinds know; the order of overrides is the order of changes."""
    overrides = [
        "policies.detection.heartbeat_s=3",
        "policies.detection.kind=phi_accrual",
        "policies.routing.kind=power_of_d",
        "policies.routing.d=3",
        "policies.retry.backoff.kind=exponential",
        "sweep={}",
    ]
    scenario = load(BASE, *overrides)
    assert scenario.policies.detection == PhiAccrualConfig(kind="phi_accrual", heartbeat_s=3)
    assert scenario.policies.routing == PowerOfDConfig(kind="power_of_d", d=3)
    assert scenario.policies.retry.backoff == ExponentialBackoff(kind="exponential")


def test_overrides_reach_into_lists_and_sweeps(here):
    """Items by index in either spelling; under `sweep` a dotted key is one key."""
    scenario = load(BASE, "faults.0.at_s=5", "faults[1].at_s=6", "sweep.policies.detection.timeout_s=[9]")
    assert [fault.at_s for fault in scenario.faults] == [5, 6]
    assert scenario.sweep == {"policies.detection.timeout_s": [9]}


def test_replacing_a_mapping_replaces_it(here):
    """Nothing of the old one is left."""
    scenario = load(BASE, "policies={routing: {kind: random}}")
    assert scenario.policies.routing.kind == "random"
    assert scenario.policies.detection == TimeoutConfig()


def test_workers_are_numbered_through_the_groups(here):
    """A flat cluster is one group; groups follow each other."""
    assert load().worker_names() == ["w1", "w2"]
    groups = "groups: [{name: a, workers: 2, prefetch: unlimited}, {name: b, workers: 1, speed: 0.5}]"
    scenario = load(swap("workers: 2", groups))
    assert scenario.worker_names() == ["w1", "w2", "w3"]
    assert [group.prefetch for group in scenario.cluster.groups] == ["unlimited", 0]


def test_files_are_looked_for_beside_their_origin_first(here):
    """The scenario's files beside the scenario, the command line's in the current directory; then the other way."""
    beside = here / "beside"
    beside.mkdir()
    for directory in (here, beside):
        (directory / "both.csv").write_text("arrival_s\n1\n")
    (beside / "there.csv").write_text("arrival_s\n1\n")
    (here / "here.csv").write_text("arrival_s\n1\n")
    scenario = beside / "s.yaml"

    def file_of(name: str, *overrides: str) -> str:
        scenario.write_text(swap(ARRIVALS, f"{{kind: trace, file: {name}}}"))
        return Scenario.load(scenario, overrides).workload.arrivals.file  # type: ignore[union-attr]

    assert file_of("both.csv") == str(beside / "both.csv")
    assert file_of("here.csv") == str(here / "here.csv")
    assert file_of("here.csv", "workload.arrivals.file=both.csv") == str(here / "both.csv")
    assert file_of("here.csv", "workload.arrivals={kind: trace, file: there.csv}") == str(beside / "there.csv")
    swept = Scenario.load(scenario, ["sweep={workload.arrivals.file: [both.csv]}"]).sweep
    assert swept == {"workload.arrivals.file": [str(here / "both.csv")]}


def test_a_policy_of_the_users_own_is_found_beside_the_scenario(here):
    """With its parameters, and again after a dump."""
    (here / "beside").mkdir()
    (here / "beside" / "own_routing_of_a_test.py").write_text(
        "from orchestrator.policies.routing import Random\n\n\n"
        "class Mine(Random):\n    def __init__(self, rng, spread=1):\n        self.spread = spread\n"
    )
    text = swap("policies:\n", "policies:\n  routing: {kind: 'own_routing_of_a_test:Mine', spread: 3}\n")
    (here / "beside" / "s.yaml").write_text(text)
    scenario = Scenario.load("beside/s.yaml")
    assert scenario.policies.routing.parameters() == {"spread": 3}  # type: ignore[union-attr]
    assert load(scenario.dump()) == scenario
    with pytest.raises(ScenarioError, match=r"does not take these parameters.*expected"):
        Scenario.load("beside/s.yaml", ["policies.routing.sprad=1"])


def test_a_sweep_is_a_grid_of_named_cells(here):
    """In the order of keys and values; each cell a scenario of its own without a sweep."""
    grid = "policies.routing.kind: [random, power_of_d]\n  cluster.workers: [2, 3]"
    cells = load(swap(SWEPT, grid)).cells()
    assert [cell.name for cell in cells] == [
        "routing=random,workers=2",
        "routing=random,workers=3",
        "routing=power_of_d,workers=2",
        "routing=power_of_d,workers=3",
    ]
    assert cells[1].values == {"policies.routing.kind": "random", "cluster.workers": 3}
    assert cells[1].scenario.worker_names() == ["w1", "w2", "w3"]
    assert all(not cell.scenario.sweep for cell in cells)


@pytest.mark.parametrize(
    ("override", "cells"),
    [
        ("cluster.workers=2,3,5", ["workers=2", "workers=3", "workers=5"]),
        ("policies.routing.kind=random,power_of_d", ["routing=random", "routing=power_of_d"]),
        ("policies.routing={kind: random},{kind: power_of_d, d: 3}", ["routing=random", "routing=power_of_d-d=3"]),
        ("faults[0].workers=[w1],[w1, w2]", ["workers=w1", "workers=w1-w2"]),
        ("faults[0].workers=[w1, w2]", ["base"]),
        ("workload.service={kind: uniform, low_s: 0, high_s: 1}", ["base"]),
        ("name='a,b'", ["base"]),
        ("name=x", ["base"]),
        ('policies.routing.kind="random","power_of_d"', ["routing=random", "routing=power_of_d"]),
        ("sweep={cluster.workers: [2, 4]}", ["workers=2", "workers=4"]),
        ("sweep.cluster.workers=2,4", ["workers=2", "workers=4"]),
    ],
)
def test_values_between_commas_are_a_sweep(here, override, cells):
    """A list or a mapping is one value, and so is what stands in quotes."""
    unswept = swap("sweep:\n  " + SWEPT, "")
    assert [cell.name for cell in load(unswept, override).cells()] == cells


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cluster.workers=2,3,2", "column 21: sweep.cluster.workers[2]: is 2 like value 1, expected each value once"),
        ("policies.detection.timeout_s=2,2.0", "sweep.policies.detection.timeout_s[1]: is 2.0 like value 1"),
        ("faults=[],[]", "sweep.faults[1]: is an empty list like value 1"),
        ("name=a,b", "sweep.name: cannot be swept, expected one text, in quotes if it has a comma"),
        ("question=Is it so, or not?", "sweep.question: cannot be swept, expected one text, in quotes"),
    ],
)
def test_a_sweep_that_nobody_means_is_an_error(here, override, words):
    """One with a value twice, also as another number of the same size; or of a text that has a comma."""
    (problem,) = problems(swap("sweep:\n  " + SWEPT, ""), override)
    assert words in problem


def test_large_numbers_are_told_apart(here):
    """Seeds that are one as floats are two."""
    assert len(load(BASE, "seed=1,100000000000000001,100000000000000002").cells()) == 2 * 3


def test_sweeps_of_the_command_line_join_that_of_the_file(here):
    """Two make a grid with the file's; a key that the file sweeps has the values given, or the value."""
    grid = load(BASE, "cluster.workers=2,3", "policies.routing.kind=random,power_of_d").sweep
    assert grid == {
        "policies.detection.timeout_s": [2.5, 4.5],
        "cluster.workers": [2, 3],
        "policies.routing.kind": ["random", "power_of_d"],
    }
    assert load(BASE, "policies.detection.timeout_s=1,2").sweep == {"policies.detection.timeout_s": [1, 2]}
    single = load(BASE, "policies.detection.timeout_s=7")
    assert (single.sweep, single.policies.detection) == ({}, TimeoutConfig(timeout_s=7))
    assert load(swap("policies.detection.timeout_s", "faults.0.at_s"), "faults[0].at_s=1").sweep == {}


def test_a_scenario_comes_from_standard_input(here, monkeypatch):
    """Its mistakes are told there; its files are looked for in the current directory."""
    (here / "t.csv").write_text("arrival_s\n1\n")
    text = swap(ARRIVALS, "{kind: trace, file: t.csv}")
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    assert Scenario.load("-").model_dump()["workload"]["arrivals"]["file"] == str(here / "t.csv")
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"name: x\nsed: 1\n")))
    with pytest.raises(ScenarioError, match=r"<stdin>:2:1: sed: unknown key"):
        Scenario.load("-")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5e3", 500.0), ("+.5", 0.5), ("1e3", 1000.0), ("5.", 5.0), ("-.5E-1", -0.05), ("0o17", 15), ("010", 10),
        ("0x1F", 31), ("+12", 12), ("1_000", "1_000"), ("0b11", "0b11"), ("yes", "yes"), ("on", "on"), ("n", "n"),
        ("1:20", "1:20"), ("2001-01-01", "2001-01-01"), ("True", True), ("~", None), ("=", "="), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    """The core schema; and what is written as a text is read as the same text."""
    read = parse(f"a: {text}")[0]["a"]
    assert (read, type(read)) == (value, type(value))
    assert parse(to_yaml({"a": text}))[0] == {"a": text}


def test_merge_keys_give_what_a_mapping_does_not_say_itself():
    """Of a list the first wins; the marks of what is merged are those of its own place."""
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc:\n  z: 4\n  <<: [*b, {x: 5, w: 6}]\nd: {'<<': 1}\n"
    tree, marks = parse(text)
    assert tree["b"] == {"x": 1, "y": 3}
    assert tree["c"] == {"x": 1, "y": 3, "z": 4, "w": 6}
    assert tree["d"] == {"<<": 1}
    assert marks["c", "x"].value[:2] == (1, 11)
    assert marks["c", "y"].value[:2] == (2, 19)
    assert marks["c", "w"].key[:2] == (5, 19)


def test_cell_names_are_fit_for_directories_and_never_alike(here):
    """Whole mappings by their kind and parameters; labels that would clash by their full keys."""
    mappings = (
        "policies.routing: [{kind: random}, {kind: power_of_d, d: 2}]\n  faults.0.at_s: [1]\n  faults.1.at_s: [1]"
    )
    names = [cell.name for cell in load(swap(SWEPT, mappings)).cells()]
    assert names == [
        "routing=random,faults.0.at_s=1,faults.1.at_s=1",
        "routing=power_of_d-d=2,faults.0.at_s=1,faults.1.at_s=1",
    ]
    names = sweeps.names([{"file": "a@b"}, {"file": "a#b"}, {"file": "é b"}, {"file": "x/a,b"}])
    assert names == ["file=a-b", "file=a-b-2", "file=é-b", "file=a,b"]


def test_a_scenario_without_a_sweep_is_its_only_cell(here):
    """Named base."""
    scenario = load(swap("sweep:\n  " + SWEPT, ""))
    [cell] = scenario.cells()
    assert (cell.name, cell.values, cell.scenario) == ("base", {}, scenario)


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        (ARRIVALS, 0.25),
        ("{kind: on_off, rate_on_per_s: 40, rate_off_per_s: 0, mean_on_s: 1, mean_off_s: 3}", 0.25),
        ("{kind: closed, clients: 2, think: {kind: constant, value_s: 0.1}}", 0.25),
        ("{kind: closed, clients: 99, think: {kind: constant, value_s: 0.1}}", 1),
        ("{kind: trace, file: t.csv, speedup: 2}", 0.1),
    ],
)
def test_offered_load_is_work_over_slots(here, arrivals, expected):
    """Four slots, 0.1 s of work a task."""
    Path("t.csv").write_text("arrival_s\n1\n5\n10\n10\n30\n")  # four arrivals in 10/2 s, one after the end
    scenario = load(swap(ARRIVALS, arrivals, swap("duration_s: 10", "duration_s: 14")))
    offered_load = scenario.offered_load()
    assert offered_load == pytest.approx(4 * 0.1 / 5 / 4 if "trace" in arrivals else expected)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rate_per_s: 10", "rate_per_s: 60", "offered load is 1.5: more work arrives"),
        ("at_s: 4, workers", "at_s: 40, workers", "faults[0].at_s (40) is after duration_s (10)"),
        (
            "at_s: 4, workers: [w1]",
            "at_s: 4, stagger_s: 7, all: true",
            "faults[0].stagger_s (7): the last of 2 workers is hit at 11 s, after duration_s (10)",
        ),
        ("timeout_s: 6.5", "timeout_s: 1", "timeout_s (1) is below heartbeat_s (2)"),
        (
            "{kind: timeout, timeout_s: 6.5}",
            "{kind: timeout}\nnetwork: {message_kinds: {heartbeat: {kind: exponential, mean_s: 1}}}",
            "a knife-edge",
        ),
        (
            "{kind: timeout, timeout_s: 6.5}",
            "{kind: timeout}\n  execution_timeout_s: 0.1\n  retry: {max_attempts: 1}",
            "policies.execution_timeout_s (0.1) is too short for 100% of the tasks",
        ),
        (ARRIVALS, "{kind: trace, file: t.csv}", "1 of the trace's 2 arrivals come after duration_s (10)"),
        (ARRIVALS, "{kind: trace, file: s.csv}", "workload.service is not used"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(here, old, new, words):
    """A sentence each, and no error."""
    Path("t.csv").write_text("arrival_s\n1\n50\n")
    Path("s.csv").write_text("arrival_s,service_s\n1,1\n10,1\n")
    [warning] = load(swap(old, new)).warnings()
    assert words in warning


def test_arrivals_that_end_early_are_no_overload(here):
    """Four slots do 400 tasks of 0.1 s in the 10 s: more of them are an overload, however fast they come."""
    fast = "{kind: constant, rate_per_s: 60}\n  tasks: "
    assert load(swap(ARRIVALS, f"{fast}400")).warnings() == []
    assert "offered load is 1.5" in load(swap(ARRIVALS, f"{fast}401")).warnings()[0]


def test_a_sound_scenario_has_no_warnings(here):
    """The base of these tests is one."""
    assert load().warnings() == []


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_scenarios_load_and_survive_their_dump(here, path):
    """Every one of them, a stand-in for the trace that one of them asks for included."""
    Path("t.csv").write_text("arrival_s,service_s\n1,1\n")
    overrides = ["workload.arrivals.file=t.csv"] if "kind: trace" in path.read_text() else []
    scenario = Scenario.load(path, overrides)
    assert load(scenario.dump()) == scenario


def distributions() -> st.SearchStrategy[dict[str, Any]]:
    seconds = st.floats(1e-9, 1e9)
    return st.one_of(
        st.fixed_dictionaries({"kind": st.just("constant"), "value_s": seconds}),
        seconds.flatmap(
            lambda low: st.fixed_dictionaries(
                {"kind": st.just("uniform"), "low_s": st.just(low), "high_s": st.floats(low, 1e10)}
            )
        ),
        st.fixed_dictionaries({"kind": st.just("exponential"), "mean_s": seconds}),
        st.fixed_dictionaries({"kind": st.just("lognormal"), "mean_s": seconds, "cv": st.floats(0, 100)}),
        st.fixed_dictionaries({"kind": st.just("pareto"), "mean_s": seconds, "alpha": st.floats(1.0001, 50)}),
    )


def scenarios() -> st.SearchStrategy[dict[str, Any]]:
    selection = st.sampled_from([{"all": True}, {"count": 1}, {"workers": ["w1"]}])
    when = st.sampled_from([{"at_s": 3}, {"mtbf_s": 1e3}])
    lengths = st.one_of(st.floats(0, 1e6), distributions())
    crash = st.fixed_dictionaries({"kind": st.just("crash")}, optional={"restart_after_s": st.integers(0, 9)})
    pause = st.fixed_dictionaries({"kind": st.just("pause"), "for_s": lengths})
    fault = st.tuples(st.one_of(crash, pause), selection, when).map(lambda parts: parts[0] | parts[1] | parts[2])
    cluster = st.sampled_from(
        [{"workers": 3, "prefetch": "unlimited"}, {"groups": [{"name": "012", "workers": 2, "speed": 1e-5}]}]
    )
    arrivals = st.one_of(
        st.just({"kind": "poisson", "rate_per_s": 3}),
        st.fixed_dictionaries({"kind": st.just("closed"), "clients": st.integers(1, 9), "think": distributions()}),
    )
    needed: dict[str, st.SearchStrategy[Any]] = {
        "name": st.text(
            st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="./\\"),
            min_size=1,
            max_size=NAME_BYTES // 4,
        ),
        "seed": st.integers(0, 10**30),
        "duration_s": st.floats(1, 1e4),
        "workload": st.fixed_dictionaries({"arrivals": arrivals, "service": distributions()}),
        "cluster": cluster,
        "faults": st.lists(fault, max_size=2),
    }
    return st.fixed_dictionaries(
        needed,
        optional={
            "network": st.fixed_dictionaries({"delay": distributions(), "loss": st.floats(0, 1)}),
            "policies": st.just({"detection": {"kind": "phi_accrual"}, "retry": {"max_attempts": 3}}),
            "sweep": st.just({"workload.task": ["sleep", "spin"], "seed": [1, 2]}),
        },
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=scenarios())
def test_a_scenario_equals_what_its_dump_loads_as(here, tree):
    """And the dump of that is the same text."""
    scenario = load(to_yaml(tree))
    again = load(scenario.dump())
    assert again == scenario
    assert again.dump() == scenario.dump()


def test_the_json_schema_is_one_and_knows_our_scenarios():
    """Draft 2020-12, with descriptions, and it refuses an unknown key."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    tree, _ = parse(BASE)
    assert list(validator.iter_errors(tree)) == []
    assert list(validator.iter_errors(tree | {"sed": 1}))
    assert schema["properties"]["duration_s"]["description"].startswith("Arrivals stop after this many seconds")
    assert list(validator.iter_errors(tree | {"duration_s": "trace"})) == []
    for path in (Path(__file__).parents[2] / "scenarios").glob("*.yaml"):
        assert list(validator.iter_errors(YAML(typ="safe", pure=True).load(path))) == []


def test_loading_adds_its_directories_to_the_path_once(here):
    """However often it is done."""
    for _ in range(3):
        load()
    assert sys.path.count(os.getcwd()) == 1
