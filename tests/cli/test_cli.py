"""The command line as a person meets it: what it prints, where, and with which exit code."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.app import app
from orchestrator.cli.explaining import in_words
from orchestrator.cli.terminal import duration, number
from orchestrator.policies import catalogue

SCENARIO = """\
name: small
seed: 7
duration_s: 20
workload:
  arrivals: {kind: poisson, rate_per_s: 20}
  service: {kind: exponential, mean_s: 0.1}
cluster: {workers: 2, capacity: 2}
"""

HEAVY = {"google", "grpc", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "ruamel", "scipy", "simpy"}


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def fail(*arguments: str | Path) -> str:
    """What stderr says of a mistake: exit code 2, nothing on stdout, no traceback."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr


def test_help_imports_nothing_heavy():
    """`--help` answers at once, since nothing that takes long to import is imported for it."""
    code = f"""
import sys
from orchestrator.cli.app import app
try:
    app(["--help"])
except SystemExit as end:
    print(end.code, sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "0 []\n"
    assert "simulate" in done.stdout


def test_check_tells_name_size_and_load(scenario: Path):
    """`check` says how many runs there would be, how loaded each is, and how long it takes."""
    checked = succeed("check", scenario, "sweep={cluster.workers: [1, 2]}", "replications=3")
    assert "small: 2 cells x 3 replications" in checked.stdout
    assert "1.000" in checked.stdout
    assert re.search(r"^workers=2 +0\.500 +400 +0\.1 s +23 s$", checked.stdout, re.MULTILINE)


def test_check_prints_json(scenario: Path):
    """`check --json` tells the same to a program."""
    told = json.loads(succeed("check", scenario, "--json").stdout)
    assert (told["scenario"], told["replications"]) == ("small", 1)
    assert [(cell["cell"], cell["offered_load"]) for cell in told["cells"]] == [("base", pytest.approx(0.5))]


def test_more_work_than_workers_is_a_warning(scenario: Path):
    """Offered load over 1 is told on stderr, and is no error."""
    checked = succeed("check", scenario, "workload.arrivals.rate_per_s=100", "--json")
    assert "warning: offered load is 2.5" in checked.stderr
    assert json.loads(checked.stdout)["cells"][0]["warnings"]


def test_a_warning_about_one_cell_names_it(scenario: Path):
    """In a sweep, a warning says which cell it is about."""
    checked = succeed("check", scenario, "sweep={workload.arrivals.rate_per_s: [20, 100]}")
    (warning,) = checked.stderr.splitlines()
    assert re.match(r"warning: \S*100\S*: offered load is 2\.5", warning)


@pytest.mark.parametrize("command", ["check", "simulate"])
def test_a_broken_scenario_is_told_with_its_place(command: str, scenario: Path):
    """Each mistake stands on a line of its own, however long: file, line, column, key, what is wrong."""
    scenario.write_text(SCENARIO.replace("seed: 7", "sede: 7").replace("workers: 2", "workers: -2"))
    lines = fail(command, scenario).splitlines()
    assert [line.startswith(f"{scenario}:") for line in lines] == [True, True]
    assert lines[0].startswith(f"{scenario}:2:1: sede: ")
    assert lines[1].startswith(f"{scenario}:7:20: cluster.workers: ")


def test_a_missing_scenario_is_told(tmp_path: Path):
    """A file that is not there is one sentence."""
    assert fail("check", tmp_path / "none.yaml").startswith(f"{tmp_path / 'none.yaml'}:1:1: ")


def test_an_override_without_a_value_is_told(scenario: Path):
    """An override has an equals sign."""
    assert "expected key=value" in fail("simulate", scenario, "duration_s")


@pytest.mark.parametrize(
    "arguments", [["simulate"], ["simulate", "x.yaml", "--jobs", "0"], ["check", "--nope"], ["plot"], ["fly"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]):
    """What the command line cannot take is a usage error."""
    assert "Usage" in fail(*arguments)


@pytest.mark.parametrize("command", ["simulate", "plot"])
def test_an_output_folder_that_cannot_be_is_told_before_the_run(command: str, scenario: Path, tmp_path: Path):
    """No run starts whose results could not be kept."""
    source = scenario
    if command == "plot":
        source = tmp_path / "saved"
        succeed("simulate", scenario, "--out", source, "--no-plots")
    out = scenario / "below-a-file"
    assert fail(command, source, "--out", out) == f"cannot write to {out}: Not a directory\n"


@pytest.mark.parametrize("command", ["simulate", "live", "fidelity", "detectors", "chaos"])
def test_a_folder_that_holds_something_is_refused_before_the_run(command: str, scenario: Path, tmp_path: Path):
    """In one sentence, and nothing of it is touched: `--out .` deletes nothing."""
    told = fail(command, scenario, "--out", tmp_path)
    assert told == f"{tmp_path} holds {scenario.name} already: choose another folder\n"
    assert [path.name for path in tmp_path.iterdir()] == [scenario.name]


def test_force_replaces_what_a_run_wrote_and_nothing_else(scenario: Path, tmp_path: Path):
    """Also beside files of the user, and no picture of the run before is left or named."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.png").write_text("mine")
    succeed("simulate", scenario, "--out", out, "--force")
    assert (out / "timeline.png").is_file()
    assert "holds results already" in fail("simulate", scenario, "--out", out)
    printed = succeed("simulate", scenario, "--out", out, "--force", "--no-plots").stdout
    assert ".png" not in printed
    assert [path.name for path in out.glob("*.png")] == ["notes.png"]


def test_a_name_that_is_a_path_is_told_at_its_position(scenario: Path):
    """No run leaves its folder."""
    for name in ("../up", "a/b", ".hidden", ".."):
        scenario.write_text(re.sub("^name: .*", f"name: {name}", scenario.read_text(), flags=re.MULTILINE))
        line = scenario.read_text().splitlines().index(f"name: {name}") + 1
        told = fail("simulate", scenario)
        assert told.startswith(f"{scenario}:{line}:7: name: is '{name}', which can't name a folder, expected ")
    assert "which can't name a folder" in fail("simulate", scenario, 'name="a\\nb"')


def test_a_sweep_is_resumed_from_the_latest_folder(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without `--out`; where nothing is, that is told; a finished run is told again, and another one is refused."""
    monkeypatch.chdir(tmp_path)
    assert fail("simulate", scenario, "--resume") == "out/small/latest holds nothing to resume\n"
    first = json.loads(succeed("simulate", scenario, "--replications", "2", "--no-plots", "--json").stdout)
    again = succeed("simulate", scenario, "--replications", "3", "--no-plots", "--resume", "--json").stdout
    assert json.loads(again)["replications"] == 3 > first["replications"]
    changed = fail("simulate", scenario, "seed=8", "--replications", "3", "--resume")
    assert changed.startswith("3 of the 3 finished runs in out/small/1 are of another scenario or world, such as ")
    whole = succeed("simulate", scenario, "--no-plots", "--json").stdout
    assert succeed("simulate", scenario, "--no-plots", "--json", "--resume").stdout == whole
    assert "--resume --force replaces it" in fail("simulate", scenario, "seed=8", "--resume")
    assert "is a single run, which has no place in a sweep" in fail(
        "simulate", scenario, "--replications", "2", "--resume"
    )
    assert "out/small/1 holds 3 runs of a sweep or of replications" in fail(
        "simulate", scenario, "--resume", "--out", "out/small/1"
    )
    assert sorted(path.name for path in (tmp_path / "out/small").iterdir()) == ["1", "2", "latest"]


def test_precision_is_told_at_the_end(scenario: Path, tmp_path: Path):
    """What was reached, with how many replications; a number that nobody knows is refused before any run."""
    wanted = ("simulate", scenario, "--precision", "0.5", "--no-plots", "--out", tmp_path / "out")
    done = succeed(*wanted, "--of", "utilization")
    assert re.fullmatch(r"utilization after \d+ replications: known to ± \S+%", done.stderr.splitlines()[-1])
    assert "speed has no interval, expected one of " in fail(*wanted, "--force", "--of", "speed")
    assert "expected a share" in fail("simulate", scenario, "--precision", "2")


def test_the_schema_describes_every_key():
    """`schema` prints a JSON Schema that an editor can read."""
    told = json.loads(succeed("schema").stdout)
    assert {"name", "seed", "workload", "cluster", "policies", "faults", "sweep"} <= told["properties"].keys()


def test_policies_lists_every_kind_with_its_parameters():
    """`policies` leaves out no family, no kind and no parameter."""
    families = json.loads(succeed("policies", "--json").stdout)
    assert {family: len(kinds) for family, kinds in families.items()} == {
        family: len(configs) for family, configs in catalogue().items()
    }
    (power_of_d,) = [kind for kind in families["routing"] if kind["kind"] == "power_of_d"]
    (d,) = power_of_d["parameters"]
    assert (d["name"], d["type"], d["default"]) == ("d", "integer >= 1", 2)
    assert d["meaning"]


def test_policies_tells_people():
    """For people, `policies` shows each parameter with its default; of one family, if one is named."""
    printed = succeed("policies").stdout
    assert re.search(r"^ +timeout_s +number > 0, default 6\.0\. \w", printed, re.MULTILINE)
    assert set(json.loads(succeed("policies", "queue", "--json").stdout)) == {"queue"}
    assert "power_of_d" not in succeed("policies", "queue").stdout
    assert "no family routin, did you mean routing?" in fail("policies", "routin")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "number", "exclusiveMinimum": 0.0}, "number > 0"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "number >= 0 and <= 1"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, "integer >= 1 or null"),
        ({"enum": ["hold", "dead"]}, "hold | dead"),
        ({}, "any"),
    ],
)
def test_types_in_words(field: dict[str, object], words: str):
    """A type reads as a person would say it."""
    assert in_words(field, {}) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (2.5e-6, "2.50 us"),
        (0.00042, "420 us"),
        (0.0234, "23.4 ms"),
        (0.000_999_7, "1.00 ms"),
        (1.0, "1.00 s"),
        (12345.6, "12,346 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(seconds: float | None, text: str):
    """A duration is short and says its unit."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0, "0.00"), (99.96, "100"), (123456.7, "123,457")])
def test_numbers_have_three_digits(value: float | None, text: str):
    """A number is whole from a hundred on."""
    assert number(value) == text


def test_simulate_names_what_it_wrote(scenario: Path, tmp_path: Path):
    """After a run stand its summary, its folder and its pictures, which are there."""
    out = tmp_path / "out"
    printed = succeed("simulate", scenario, "--out", out).stdout
    for word in ("small: sim, seed 7, 20 s", "latency", "wait", "detection", "utilisation", "late results", "wasted"):
        assert word in printed
    pictures = [Path(line.strip()) for line in printed.splitlines() if line.endswith(".png")]
    assert len(pictures) >= 5
    assert all(picture.parent == out and picture.is_file() for picture in pictures)
    assert all(picture.with_suffix(".svg").is_file() for picture in pictures)


def test_simulate_prints_the_summary_as_json(scenario: Path, tmp_path: Path):
    """`--json` prints what `summary.json` holds, and how fast it was, and nothing else on stdout."""
    printed = json.loads(succeed("simulate", scenario, "--json", "--no-plots", "--out", tmp_path / "out").stdout)
    assert printed.pop("engine") == json.loads((tmp_path / "out/engine.json").read_text())
    assert printed == json.loads((tmp_path / "out/summary.json").read_text())
    assert printed["tasks"]["submitted"] == printed["tasks"]["completed"] > 300


def test_results_go_below_out_by_name(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without `--out`, the scenario's name is the folder's, and each run has one of its own in it."""
    monkeypatch.chdir(tmp_path)
    for place in (1, 2):
        assert f"results in out/small/{place}\n" in succeed("simulate", scenario, "--no-plots").stdout
        assert (tmp_path / f"out/small/{place}/summary.json").samefile(tmp_path / "out/small/latest/summary.json")


def test_no_plots_draws_none(scenario: Path, tmp_path: Path):
    """`--no-plots` keeps the tables and leaves out the pictures, of a run and of a sweep."""
    for name, further in {"run": [], "sweep": ["--replications", "2"]}.items():
        out = tmp_path / name
        assert ".png" not in succeed("simulate", scenario, *further, "--no-plots", "--out", out).stdout
        assert (out / "summary.json").is_file()
        assert not list(out.rglob("*.png"))


def test_simulate_runs_the_sweep(scenario: Path, tmp_path: Path):
    """A sweep prints a row a cell and keeps a folder a run."""
    sweep = "sweep={policies.routing.kind: [random, least_loaded]}"
    printed = succeed("simulate", scenario, sweep, "--replications", "2", "--out", tmp_path / "out").stdout
    assert "2 cells, 4 runs" in printed
    assert len(list((tmp_path / "out").glob("*/r[01]/summary.json"))) == 4
    assert re.search(r"out/sweep-\S+\.png", printed)


def test_plot_draws_again_and_over_one_another(scenario: Path, tmp_path: Path):
    """`plot` needs nothing but saved folders: one is drawn again, several are overlaid, in a folder of its own."""
    first, second, both = tmp_path / "first", tmp_path / "second", tmp_path / "both"
    succeed("simulate", scenario, "--no-plots", "--out", first)
    succeed("simulate", scenario, "cluster.workers=3", "--no-plots", "--out", second)
    assert str(tmp_path / "again/timeline.png") in succeed("plot", first, "--out", tmp_path / "again").stdout
    assert "holds results already" in fail("plot", first, "--out", first)
    assert str(first / "timeline.png") in succeed("plot", first, "--out", first, "--force").stdout
    assert (first / "tasks.parquet").is_file()
    assert str(both) in succeed("plot", first, second, "--out", both).stdout
    assert list(both.glob("*.png"))


def test_plotting_what_is_no_run_is_told(tmp_path: Path):
    """A folder without a run is a sentence that names it."""
    assert str(tmp_path) in fail("plot", tmp_path)
    assert str(tmp_path / "none") in fail("plot", tmp_path / "none")


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], patience_s: float = 60.0) -> None:
    """Return once the condition holds; fail when the process ends before, or patience does."""
    deadline = monotonic() + patience_s
    while not condition():
        assert monotonic() < deadline
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"ended early: {process.communicate()}")


def interrupt(condition: Callable[[], bool], *arguments: str | Path) -> str:
    """What stderr says of a `simulate` interrupted once the condition holds, as by Ctrl-C in a terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "simulate", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(condition, process)
        os.killpg(process.pid, signal.SIGINT)  # to every process in the foreground
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert stdout == ""
    return stderr


def test_an_interrupted_sweep_keeps_the_finished_runs(scenario: Path, tmp_path: Path):
    """Ctrl-C in a sweep says how many runs are kept and where; they can be drawn."""
    out = tmp_path / "out"

    def finished() -> list[Path]:
        return sorted(out.glob("*/r*/summary.json"))

    told = interrupt(lambda: bool(finished()), scenario, "--replications", "5000", "--out", out)
    assert told.splitlines()[-1] == f"interrupted: {len(finished())} of 5,000 runs kept in {out}"
    assert ".png" in succeed("plot", finished()[0].parent).stdout


def test_an_interrupt_before_anything_is_finished_says_so(scenario: Path, tmp_path: Path):
    """Ctrl-C while the first runs go on leaves nothing, and says that."""
    out = tmp_path / "out"
    longer = ["duration_s=1000000", "workload.arrivals.rate_per_s=35"]
    told = interrupt(out.is_dir, scenario, *longer, "--replications", "2", "--out", out)
    assert re.fullmatch("interrupted.*\n", told)
    assert not list(out.rglob("*.json"))


def test_an_interrupt_amid_an_import_exits_with_130():
    """CPython takes an interrupt inside of an exec'd string, as dataclasses are made by, for an unhandled one."""
    program = (
        "from typer import Typer; from orchestrator.cli.terminal import explained\n"
        "app = Typer()\n"
        "@app.command()\n"
        "def command():\n"
        "    with explained():\n"
        "        exec('raise KeyboardInterrupt')\n"
        "app()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
