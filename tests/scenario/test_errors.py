"""A broken scenario says where and what is wrong."""

# A case of a table is a line, however long.
# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.scenario.schema import Scenario, ScenarioError
from tests.scenario.writing import ARRIVALS, BASE, SERVICE, SWEPT, load, problems, swap

# (id, what to replace, by what, then the place and key of the only problem, and some of its words)
BROKEN = [
    ("unknown key at the top", "seed: 1", "sed: 1", "2:1: sed", "unknown key, did you mean seed?"),
    ("unknown key below", "rate_per_s: 10}", "rate_per_s: 10, rat: 1}", "5:45: workload.arrivals.rat", "expected one of kind"),
    ("unknown key in a fault", "for_s: 3", "for_s: 3, factor: 3", "12:49: faults[1].factor", "unknown key"),
    ("missing name", "name: base\n", "", "1:1: name", "is missing, expected text"),
    ("missing rate", ", rate_per_s: 10", "", "5:3: workload.arrivals.rate_per_s", "is missing, expected a number"),
    ("missing kind", "kind: poisson, ", "", "5:3: workload.arrivals.kind", "expected one of poisson, constant, on_off"),
    ("missing service", f"  service: {SERVICE}\n", "", "4:1: workload.service", "is missing, expected a distribution"),
    ("missing pause length", ", for_s: 3", "", "12:5: faults[1]", "exactly one of for_s, mttr_s"),
    ("text for a number", "duration_s: 10", "duration_s: ten", "3:13: duration_s", 'is "ten", expected a number'),
    ("quoted number", "duration_s: 10", "duration_s: '10'", "3:13: duration_s", 'is "10", expected a number'),
    ("fraction for a count", "workers: 2", "workers: 2.5", "7:20: cluster.workers", "is 2.5, expected a whole number"),
    ("truth for a number", "seed: 1", "seed: true", "2:7: seed", "is true, expected a whole number"),
    ("nothing for a number", "duration_s: 10", "duration_s:", "3:1: duration_s", "is nothing (null), expected a number"),
    ("list for a mapping", "cluster: {workers: 2}", "cluster: [2]", "7:10: cluster", "is a list, expected a mapping of workers"),
    ("scalar for a policy", "{kind: timeout, timeout_s: 6.5}", "timeout", "9:14: policies.detection", "a mapping with a kind (timeout"),
    ("negative rate", "rate_per_s: 10", "rate_per_s: -10", "5:41: workload.arrivals.rate_per_s", "is -10, expected more than 0"),
    ("negative pause", "for_s: 3", "for_s: -3", "12:46: faults[1].for_s", "is -3, expected at least 0"),
    ("probability over 1", "policies:\n", "network: {loss: 2}\npolicies:\n", "8:17: network.loss", "is 2, expected at most 1"),
    ("not a number", "duration_s: 10", "duration_s: .nan", "3:13: duration_s", "is .nan, expected a finite number"),
    ("infinite", "value_s: 0.1", "value_s: 1e999", "6:38: workload.service.value_s", "expected a finite number"),
    ("too big an integer", "duration_s: 10", "duration_s: 1" + "0" * 400, "3:13: duration_s", "expected a finite number"),
    ("unknown policy", "kind: timeout", "kind: timeuot", "9:21: policies.detection.kind", "did you mean timeout?"),
    ("policy that cannot be imported", "kind: timeout", "kind: no_such.thing:X", "9:21: policies.detection.kind", "cannot import"),
    ("the inner name of a union", "kind: timeout", "kind: custom", "9:21: policies.detection.kind", "package.module:Class"),
    ("wrong choice", "timeout_s: 6.5", "on_failed_call: die", "9:46: policies.detection.on_failed_call", "'hold' or 'dead'"),
    ("unknown distribution", "kind: constant", "kind: gamma", "6:19: workload.service.kind", "expected one of constant, uniform"),
    ("bounds reversed", SERVICE, "{kind: uniform, low_s: 3, high_s: 1}", "6:46: workload.service.high_s", "at least 3"),
    ("pareto without a mean", SERVICE, "{kind: pareto, mean_s: 1, alpha: 1}", "6:45: workload.service.alpha", "more than 1"),
    ("shares", f"service: {SERVICE}", f"service: {SERVICE}\n  priorities: {{low: 0.5, high: 0.4}}", "7:15: workload.priorities", "sum to 0.9"),
    ("unknown priority", f"service: {SERVICE}", f"service: {SERVICE}\n  priorities: {{lo: 1}}", "7:16: workload.priorities.lo", "did you mean low?"),
    ("warm-up too long", "seed: 1", "warmup_s: 10", "2:11: warmup_s", "less than duration_s (10)"),
    ("too many tasks", "duration_s: 10", "duration_s: 1e12", "5:13: workload.arrivals", "expected at most 100,000,000"),
    ("too many workers", "workers: 2", "workers: 1000001", "7:20: cluster.workers", "expected at most 1,000,000"),
    ("prefetch", "workers: 2", "workers: 2, prefetch: all", "7:33: cluster.prefetch", "or unlimited"),
    ("flat and groups", "workers: 2", "workers: 2, groups: [{name: a, workers: 1}]", "7:11: cluster.workers", "stands beside groups"),
    ("groups alike", "workers: 2", "groups: [{name: a, workers: 1}, {name: a, workers: 1}]", "7:50: cluster.groups[1].name", "a name of its own"),
    ("unknown worker", "[w1]", "[w1, w3]", "11:42: faults[0].workers[1]", 'no worker "w3", expected a name from w1 to w2'),
    ("unknown worker w01", "[w1]", "[w01]", "11:38: faults[0].workers[0]", 'no worker "w01"'),
    ("count over workers", "workers: [w1]", "count: 3", "11:35: faults[0].count", "is 3, expected at most 2"),
    ("two selections", "workers: [w1]", "workers: [w1], count: 1", "11:43: faults[0].count", "exactly one of workers, count, all"),
    ("no selection", ", workers: [w1]", "", "11:5: faults[0]", "expected exactly one of workers, count, all"),
    ("two times", "at_s: 4, workers", "at_s: 4, mtbf_s: 4, workers", "11:28: faults[0].mtbf_s", "exactly one of at_s, every_s, mtbf_s"),
    ("no time", "at_s: 4, workers", "workers", "11:5: faults[0]", "expected exactly one of at_s, every_s, mtbf_s"),
    ("unknown group", "workers: [w1]", "group: rack-9", "11:35: faults[0].group", 'no group "rack-9", expected workers'),
    ("a speed above one", "kind: pause", "kind: slow, factor: 2", "12:26: faults[1].factor", "expected at most 1"),
    ("stagger of chance", "at_s: 4, workers", "mtbf_s: 4, stagger_s: 1, workers", "11:30: faults[0].stagger_s", "expected at_s or every_s"),
    ("two repairs", "workers: [w1]", "workers: [w1], restart_after_s: 1, mttr_s: 1", "11:63: faults[0].mttr_s", "expected at most one of restart_after_s, mttr_s"),
    ("unknown fault", "kind: crash", "kind: crush", "11:12: faults[0].kind", "did you mean crash?"),
    ("sweep of an unknown key", SWEPT, "policies.detection.timeout: [2, 4]", "14:3: sweep.policies.detection.timeout", "did you mean timeout_s?"),
    ("sweep of an unknown root", SWEPT, "polices.x: [1]", "14:3: sweep.polices.x", "did you mean policies?"),
    ("sweep of a key below a number", SWEPT, "seed.x: [1]", "14:3: sweep.seed.x", "seed is 1, expected a mapping"),
    ("sweep of a fault that is not", SWEPT, "faults.5.at_s: [1]", "14:3: sweep.faults.5.at_s", "a list of 2"),
    ("sweep with a bad value", SWEPT, "policies.detection.timeout_s: [2, -4]", "14:37: sweep.policies.detection.timeout_s[1]", "is -4"),
    ("sweep with a bad kind", SWEPT, "policies.routing.kind: [random, x]", "14:35: sweep.policies.routing.kind[1]", "unknown kind"),
    ("sweep that breaks another key", SWEPT, "cluster.workers: [2, 1]\n  faults.0.workers: [[w2]]", "15:22: sweep.faults.0.workers[0]", "faults[0].workers[0]: there is no worker"),
    ("sweep of nothing", SWEPT, "policies.detection.timeout_s: []", "14:33: sweep.policies.detection.timeout_s", "an empty list"),
    ("sweep of a scalar", SWEPT, "policies.detection.timeout_s: 4", "14:33: sweep.policies.detection.timeout_s", "expected a list"),
    ("sweep of the replications", SWEPT, "replications: [1, 2]", "14:3: sweep.replications", "cannot be swept"),
    ("sweep too large", SWEPT, f"faults.0.at_s: {[*range(101)]}\n  faults.1.at_s: {[*range(101)]}", "13:1: sweep", "10,201 combinations"),
    ("no replications", "seed: 1", "replications: 0", "2:15: replications", "is 0, expected at least 1"),
    ("duplicate key", "seed: 1", "name: other", "2:1: name", "given twice, first on line 1"),
    ("key that is no text", "seed: 1", "1: 2", "2:1: scenario", "has 1 as a key"),
    ("tag", "seed: 1", "seed: !!python/name:os.system x", "2:7: seed", "the tag"),
    ("undefined alias", "seed: 1", "seed: *one", "2:7: scenario", "undefined alias"),
    ("alias of itself", "[w1]", "&all [*all]", "11:37: faults[0].workers[0]", "an alias of something that holds it"),
    ("digits that a line divides", "seed: 1", "seed: 1_000", "2:7: seed", 'is "1_000", expected a whole number'),
    ("a truth of YAML 1.1", "workers: [w1]", "all: yes", "11:33: faults[0].all", 'is "yes"'),
    ("merged mistake", "seed: 1", "network: &n {loss: 0.1}\nlive: {<<: *n}", "2:14: live.loss", "unknown key"),
    ("merged number", "seed: 1", "live: {<<: 3}", "2:12: live.<<", "merges what is no mapping"),
    ("merged itself", "seed: 1", "live: &live {<<: *live}", "2:7: live.<<", "an alias of something that holds it"),
    ("merged twice", "seed: 1", "live: {<<: {}, <<: {}}", "2:20: live.<<", "given twice"),
    ("syntax", "seed: 1", "seed: [1", "3:11: scenario", "expected valid YAML"),
    ("two documents", "seed: 1", "seed: 1\n---", "3:1: scenario", "expected valid YAML"),
    ("control character", "seed: 1", "seed: \a1", "2:7: scenario", "is not allowed"),
    ("missing trace", ARRIVALS, "{kind: trace, file: none.csv}", "5:33: workload.arrivals.file", 'no file "none.csv"'),
    ("missing model", "seed: 1", "model: none.yaml", "2:8: model", 'no file "none.yaml"'),
    ("missing empirical file", SERVICE, "{kind: empirical, file: none.csv, column: x}", "6:36: workload.service.file", "no file"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_scenario_says_where_and_what(here, old, new, at, words):
    """One line with the exact place and key, what is wrong and what was expected."""
    [line] = problems(swap(old, new))
    assert line.startswith(f"s.yaml:{at}: ")
    assert words in line
    assert "expected" in line


@pytest.mark.parametrize(
    ("content", "at", "words"),
    [
        (b"", "1:1", "nothing (null), expected a mapping"),
        (b"# only a comment\n", "1:1", "nothing (null)"),
        (b"- 1\n", "1:1", "is a list, expected a mapping"),
        (b"name: x\nseed: \xff\n", "2:7", "byte 0xff is not UTF-8"),
        (b"a: " + b"[" * 5000, "1:1", "expected"),
        (b"name: " + b"\n  - ".join([b""] + [b"&a [1]"] + [b"*a"] * 60_000), "1:1", "more than 100,000 values"),
    ],
    ids=["empty", "comment", "list", "latin-1", "deep", "huge"],
)
def test_a_file_that_is_no_scenario_says_so(here, content, at, words):
    """Whatever the bytes are, the answer has the same shape."""
    Path("s.yaml").write_bytes(content)
    with pytest.raises(ScenarioError) as caught:
        Scenario.load("s.yaml")
    [line] = map(str, caught.value.problems)
    assert line.startswith(f"s.yaml:{at}: scenario: ")
    assert words in line


@pytest.mark.parametrize(("path", "words"), [("none.yaml", "no such file"), (".", "cannot be read")])
def test_a_path_that_is_no_file_says_so(here, path, words):
    """A missing file and a directory are problems at 1:1."""
    with pytest.raises(ScenarioError) as caught:
        Scenario.load(path)
    assert str(caught.value).startswith(f"{path}:1:1: scenario: ")
    assert words in str(caught.value)


TRACES = [
    ("no column", "arrival,service_s\n1,1\n", "no column arrival_s in t.csv"),
    ("no rows", "arrival_s,service_s\n", "no rows"),
    ("empty file", "", "t.csv is empty"),
    ("no number", "arrival_s,service_s\n1,1\nx,1\n", "line 3 of t.csv has 'x' as arrival_s, expected a number"),
    ("no service number", "arrival_s,service_s\n1,\n", "line 2 of t.csv has '' as service_s"),
    ("unsorted", "arrival_s,service_s\n1,1\n\n3,1\n2,1\n", "line 5 of t.csv has 2 as arrival_s after 3"),
    ("negative time", "arrival_s,service_s\n-1,1\n", "line 2 of t.csv has -1 as arrival_s"),
    ("negative service", "arrival_s,service_s\n1,-1\n", "line 2 of t.csv has -1 as service_s"),
    ("not finite", "arrival_s,service_s\n1,1\ninf,1\n", "line 3 of t.csv has inf as arrival_s, expected a finite"),
    ("priority", "arrival_s,service_s,priority\n1,1,high\n2,1,now\n", "line 3 of t.csv has 'now' as priority"),
    ("short row", "service_s,arrival_s\n1\n", "line 2 of t.csv has 1 cells, expected 2"),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in TRACES], ids=[case[0] for case in TRACES])
def test_a_broken_trace_is_told_at_its_key_with_its_line(here, text, words):
    """The place is the scenario's key `file`; the message has the line of the data."""
    Path("t.csv").write_text(text)
    [line] = problems(swap(ARRIVALS, "{kind: trace, file: t.csv}"))
    assert line.startswith("s.yaml:5:33: workload.arrivals.file: ")
    assert words in line


def test_a_file_that_is_no_parquet_says_so(here):
    """A Parquet file is told by its name, and read as one."""
    Path("t.parquet").write_text("arrival_s\n1\n")
    [line] = problems(swap(ARRIVALS, "{kind: trace, file: t.parquet}"))
    assert "no Parquet file" in line


def test_an_empirical_column_that_is_not_there_is_told_at_its_name(here):
    """Of a file that is fine, the column is what is wrong."""
    Path("t.csv").write_text("a,b\n1,2\n")
    [line] = problems(swap(SERVICE, "{kind: empirical, file: t.csv, column: c}"))
    assert line.startswith("s.yaml:6:51: workload.service.column: no column c in t.csv, expected it among a, b")


def test_every_problem_is_told_in_the_order_of_the_file(here):
    """One run shows all that pydantic can see at once."""
    lines = problems(swap("seed: 1", "seed: x", swap("rate_per_s: 10", "rate_per_s: 0")))
    assert [line.split(":")[1] for line in lines] == ["2", "5"]


OVERRIDES = [
    ("foo", "1: foo", "expected key=value"),
    ("polices.x=1", "1: polices", "did you mean policies?"),
    ("policies.detection.timout_s=1", "1: policies.detection.timout_s", "did you mean timeout_s?"),
    ("policies.detection.timeout_s=x", "30: policies.detection.timeout_s", 'is "x"'),
    ("policies.detection.heartbeat_s=0", "32: policies.detection.heartbeat_s", "more than 0"),
    ("duration_s=[1", "14: duration_s", "expected valid YAML"),
    ("duration_s=", "1: duration_s", "nothing (null)"),
    ("seed.x=1", "1: seed.x", "expected a mapping around this key"),
    ("faults.7.at_s=1", "1: faults[7]", "a list of 2"),
    ("a..b=1", "1: a..b", "not a key"),
    ("network={loss: 0.1, lss: 1}", "21: network.lss", "did you mean loss?"),
    ("workload.arrivals.kind=trace", "1: workload.arrivals.file", "is missing"),
    ("duration_s=10,-5", "15: sweep.duration_s[1]", "is -5, expected more than 0"),
    ("duration_s=10,,5", "12: duration_s", 'is "10,,5", expected a number'),
    ("policies.routing.kind=random,x", "30: sweep.policies.routing.kind[1]", "unknown kind"),
    ("replications=1,2", "1: sweep.replications", "cannot be swept"),
]


@pytest.mark.parametrize(("override", "at", "words"), OVERRIDES)
def test_a_broken_override_is_told_at_the_command_line(here, override, at, words):
    """With its number, its text, and the column in that; whatever the file says of the key."""
    [line] = problems(swap("sweep:\n  " + SWEPT, ""), "seed=3", override)
    assert line.startswith(f"<command line>: override 2 ({override}), column {at}: ")
    assert words in line


def test_mistakes_of_the_file_come_before_those_of_overrides(here):
    """Each kind with its own places."""
    first, second = problems(swap("seed: 1", "seed: x"), "duration_s=-1")
    assert first.startswith("s.yaml:2:7: seed: ")
    assert second.startswith("<command line>: override 1 (duration_s=-1), column 12: duration_s: ")


@pytest.mark.parametrize(
    ("key", "lacking", "role"),
    [
        ("routing", "joined(worker), left(worker), load_changed(worker, before) and choose(task)", "a routing policy"),
        ("queue", "push(task), pop(), __len__() and __iter__()", "a queue"),
        ("detection", "heard(now), verdict(now) and review_at()", "a failure detector"),
        ("hedging", "began(kind, ", "a hedging policy"),
        ("ejection", "ended(attempt, now), review_at() and review(workers, now)", "an ejection policy"),
        ("retry.backoff", "__call__(tries)", "a backoff"),
    ],
)
def test_a_policy_class_without_its_protocol_is_told_at_its_kind(here, monkeypatch, key, lacking, role):
    """Every family: one line with the place of `kind`, the methods that are missing, and whose they are."""
    monkeypatch.syspath_prepend(here)
    (here / "empty_policy_of_a_test.py").write_text("class Empty:\n    pass\n")
    family, _, inner = key.partition(".")
    policy = "{kind: 'empty_policy_of_a_test:Empty'}"
    text = swap(
        "  detection: {kind: timeout, timeout_s: 6.5}", f"  {family}: {f'{{{inner}: {policy}}}' if inner else policy}"
    )
    [line] = problems(swap("sweep:\n  " + SWEPT, "", text))
    column = 3 + len(f"{family}: {{{f'{inner}: {{' if inner else ''}kind: ")
    assert line.startswith(f"s.yaml:9:{column}: policies.{key}.kind: empty_policy_of_a_test:Empty lacks {lacking}")
    assert line.endswith(f", expected a class with every method of {role}")


@pytest.mark.parametrize(
    ("old", "new", "at", "renamed"),
    [
        ("policies:\n", "network: {legs: {submit: 1}}\npolicies:\n", "8:11: network.legs", "network.message_kinds"),
        (
            "policies:\n",
            "policies:\n  retry: {poison_after: 2}\n",
            "9:11: policies.retry.poison_after",
            "policies.retry.max_worker_kills",
        ),
        (
            "timeout_s: 6.5",
            "max_ejected: 0.5",
            "9:30: policies.detection.max_ejected",
            "policies.detection.max_dead_share",
        ),
        (
            SWEPT,
            "policies.retry.poison_after: [1, 2]",
            "14:3: sweep.policies.retry.poison_after",
            "policies.retry.max_worker_kills",
        ),
        (SWEPT, "network.legs.submit: [1, 2]", "14:3: sweep.network.legs.submit", "network.message_kinds"),
    ],
)
def test_an_old_key_is_an_error_that_names_the_new_one(here, old, new, at, renamed):
    """With its position, in the scenario and in its sweep."""
    [line] = problems(swap(old, new))
    assert line == f"s.yaml:{at}: was renamed, expected {renamed}"


def test_an_old_key_in_an_override_or_a_model_is_an_error_that_names_the_new_one(here):
    """An override has its place on the command line; a model has its own file."""
    assert problems(BASE, "policies.retry.poison_after=2") == [
        "<command line>: override 1 (policies.retry.poison_after=2), column 1: policies.retry.poison_after: "
        "was renamed, expected policies.retry.max_worker_kills"
    ]
    Path("model.yaml").write_text("network:\n  legs: {submit: 1}\n")
    [line] = problems(swap("seed: 1", "model: model.yaml"))
    assert line.endswith("model.yaml:2:3: network.legs: was renamed, expected network.message_kinds")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "workload",
    "workload.arrivals",
    "cluster",
    "policies.detection",
    "faults",
    "faults.1.for_s",
    "sweep",
    "network",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS) | st.text(max_size=8), value=json_values)
def test_whatever_is_put_anywhere_is_taken_or_told_in_our_own_words(here, key, value):
    """No traceback, no words of a library, and one line a problem."""
    try:
        load(BASE, f"{key}={json.dumps(value)}")
    except ScenarioError as error:
        for problem in error.problems:
            assert "expected" in problem.message
            assert "Input should" not in problem.message
            assert len(str(problem).splitlines()) == 1


def test_a_problem_can_cross_processes(here):
    """As a parallel sweep needs."""
    import pickle

    with pytest.raises(ScenarioError) as caught:
        load("name: 1\n")
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
