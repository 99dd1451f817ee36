"""What all commands have in common: help, versions, examples, silence, JSON, tables and progress that fit."""

from __future__ import annotations

import io
import json
import platform
import re
import shlex
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import orchestrator
from orchestrator.cli import terminal
from orchestrator.cli.app import GROUPS, app

SCENARIO = """\
name: small
duration_s: 5
workload:
  arrivals: {kind: poisson, rate_per_s: 20}
  service: {kind: exponential, mean_s: 0.1}
cluster: {workers: 2, capacity: 2}
"""
ROOT: Any = typer.main.get_command(app)
COMMANDS: dict[str, Any] = {
    f"{name} {part}".strip(): command
    for name, group in ROOT.commands.items()
    if not group.hidden
    for part, command in getattr(group, "commands", {"": group}).items()
}
RACK = str(Path(__file__).parents[2] / "scenarios" / "rack-timeout.yaml")
UNHEARD = {"coordinator", "worker", "up", "schema", "store export"}
"""Three that log, and two that print JSON anyway."""


def run(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SCENARIO)
    return tmp_path


def test_the_help_lists_every_command_in_one_of_two_groups():
    """`-h` is `--help`; no command is left out, and the hidden one is."""
    told = run("-h").stdout
    assert told == run("--help").stdout
    for group in GROUPS:
        assert f"\n{group}:\n" in told
    assert re.findall(r"^  ([a-z-]+)  +[A-Z]", told.partition("Experiments:")[2], re.MULTILINE) == list(
        dict.fromkeys(name.split()[0] for name in COMMANDS)
    )
    assert "relay" not in told


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_cuts_an_option(name: str, width: int):
    """Every option, argument and example stands there in full, in lines that fit."""
    around = ROOT.context_class(ROOT, info_name="orchestrator", terminal_width=width, **ROOT.context_settings)
    told = COMMANDS[name].get_help(ROOT.context_class(COMMANDS[name], info_name=name, parent=around))
    for parameter in COMMANDS[name].params:
        if not getattr(parameter, "hidden", False):
            assert all(re.search(rf"(?<![\w-]){option}(?![\w-])", told) for option in parameter.opts if "-" in option)
    assert "…" not in told
    assert all(len(line) <= width for line in told.partition("  Example")[0].splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str):
    """The last one begins with the command, and has only options that it knows."""
    examples = [
        shlex.split(line)
        for line in run(*name.split(), "-h").stdout.splitlines()
        if line.startswith("    orchestrator ")
    ]
    words = name.split()
    assert examples[-1][1 : 1 + len(words)] == words
    for _, *arguments in examples:
        arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
        command = arguments[0] if arguments[0] in COMMANDS else " ".join(arguments[:2])
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {one for one in arguments if one.startswith("--")} <= known


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - UNHEARD))
def test_every_command_speaks_json(name: str):
    """Wherever a program may read what a command says."""
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


def test_the_version_is_that_of_package_python_and_wire():
    """One line; the wire's fingerprint are eight hexadecimal digits."""
    told = run("--version")
    assert told.exit_code == 0
    expected = f"cluster-rehearsal {orchestrator.__version__}, Python {platform.python_version()}, wire "
    assert re.fullmatch(re.escape(expected) + r"[0-9a-f]{8}\n", told.stdout)


def test_a_scenario_comes_through_a_pipe(here: Path):
    """`-` is standard input, and a mistake has its place there."""
    assert "0.500" in run("check", "-", stdin=SCENARIO).stdout
    broken = run("check", "-", "cluster.workers=none", stdin=SCENARIO.replace("cluster", "clutter"))
    assert broken.exit_code == 2
    assert broken.stderr.splitlines()[0].startswith("<stdin>:6:1: clutter: unknown key, did you mean cluster?")


def test_values_between_commas_make_a_grid(here: Path):
    """Two of them every combination."""
    told = json.loads(run("check", "small.yaml", "cluster.workers=2,4", "seed=1,2,3", "--json").stdout)
    assert [cell["cell"] for cell in told["cells"]][:2] == ["workers=2,seed=1", "workers=2,seed=2"]
    assert len(told["cells"]) == 6


@pytest.mark.parametrize("command", ["chaos small.yaml --seeds 1", "coordinator --scenario small.yaml --port 0"])
def test_a_command_that_sweeps_nothing_refuses_a_sweep(here: Path, command: str):
    """Rather than to run the first value."""
    refused = run(*command.split(), "policies.detection.timeout_s=2.5,5.5")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "policies.detection.timeout_s=2.5,5.5 is a sweep, expected one value" in refused.stderr


def test_a_quiet_command_says_where_the_results_are(here: Path):
    """And nothing else, so that a script can use it; warnings stay."""
    quiet = run("simulate", "small.yaml", "--quiet", "--no-plots", "--out", "there")
    assert (quiet.stdout, quiet.stderr) == ("there\n", "")
    overloaded = run("simulate", "small.yaml", "-q", "--no-plots", "--out", "then", "workload.arrivals.rate_per_s=90")
    assert overloaded.stdout == "then\n"
    assert overloaded.stderr.startswith("warning: offered load")
    assert run("recover", "there", "--quiet").stderr.startswith("there")
    pictures = json.loads(run("plot", "there", "--json").stdout)["pictures"]
    assert pictures
    assert all(Path(picture).is_file() for picture in pictures)
    assert json.loads(run("init", "gc-pause", "--json").stdout) == {"files": ["gc-pause.yaml"]}


def test_the_page_on_the_command_line_names_the_commands_that_can_be_quiet():
    """All of them, and no other."""
    page = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    sentence = page.partition("with `--json` it prints JSON.")[2].partition("log warnings only")[0]
    quiet = {name for name, command in COMMANDS.items() if any("--quiet" in one.opts for one in command.params)}
    assert set(re.findall(r"`([a-z-]+)`", sentence)) - {"--quiet"} == quiet


# ---- what a key means


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("policies.detection.timeout_s", ["number > 0", "6.0", "seconds", "policies.detection.kind is timeout"]),
        ("cluster.workers", ["How many.", "none, it or cluster.groups must be given", "cluster.workers="]),
        ("cluster.groups", ["default  none, it or cluster.workers must be given"]),
        ("cluster.groups.workers", ["default  none, it must be given", "integer >= 1"]),
        ("sweep", ["default  empty"]),
        ("faults", ["default  empty"]),
        ("faults", ["Kinds of faults:", "restart           The process is told to leave, and finishes what it runs"]),
        ("faults.restart", ["kind: restart", "Keys of faults, kind: restart:", "grace_s", "stagger_s"]),
        ("policies.detection.phi_accrual", ["Dead when the silence is too unlikely", "threshold", "heartbeat_s"]),
        ("faults[0].restart_after_s", ["faults.kind is crash", "faults.0.restart_after_s="]),
        ("workload.kinds.report.share", ["workload.kinds.*.share", "kinds.lookup.share=0.98", "kinds-of-tasks"]),
        ("policies.detection", ["phi_accrual", "Keys of policies.detection:", "threshold", "(phi_accrual)"]),
        ("alpha_s", ["policies.detection.alpha_s", "policies.detection.detector.alpha_s"]),
        ("latency_s.p99", ["In the results:", "summary.latency_s", "Arrival to result"]),
        ("tasks.wait_s", ["`started_s` - `arrival_s`", "(s)"]),
    ],
)
def test_explain_tells_what_a_key_means(key: str, words: list[str]):
    """Meaning, type, default, unit, kinds and an example; of what holds keys, those; of an end, where it stands."""
    told = run("explain", key)
    assert told.exit_code == 0
    assert [word for word in words if word not in told.stdout] == []


def test_explain_knows_every_key_of_a_scenario():
    """Each with a meaning; without a key, it lists the first ones."""
    from orchestrator.cli.explaining import scenario_keys

    keys = scenario_keys()
    assert [name for name, key in keys.items() if name and not key.forms[0].meaning] == []
    top = run("explain").stdout
    assert all(re.search(rf"^  {name} ", top, re.MULTILINE) for name in keys if name and "." not in name)


def test_explain_of_a_kind_has_no_key_of_another():
    """A restart has a grace period, and no time until it is back, as a crash has."""
    told = run("explain", "faults.restart").stdout
    assert "grace_s" in told
    assert "restart_after_s" not in told


def test_explain_suggests_what_was_meant():
    """A key that there is not is an error."""
    told = run("explain", "policies.detection.timout_s")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "did you mean policies.detection.timeout_s" in told.stderr


def test_explain_of_nothing_is_an_error():
    """No list of all keys, and no guess without a name."""
    told = run("explain", " ")
    assert (told.exit_code, told.stdout) == (2, "")
    assert told.stderr == "the key is empty, expected one that `orchestrator explain` lists\n"


def test_explain_tells_a_program_the_same():
    """As JSON."""
    (key,) = json.loads(run("explain", "cluster.prefetch", "--json").stdout)["keys"]
    assert (key["name"], key["forms"][0]["default"], key["unit"]) == ("cluster.prefetch", "0", "")


# ---- before a run


def test_check_tells_the_load_on_what_faults_leave():
    """A rack of a fifth of the workers is away: the load is told beside that on the rest; cells alike have one row."""
    told = run("check", RACK, "policies.detection.timeout_s=10,30").stdout
    assert re.search(r"^each of 2 +0\.660 ", told, re.MULTILINE)
    assert "The load is 66 %, and 82 % of what the fault leaves (crash of rack at 30 s)." in told


def test_an_interrupt_behind_the_last_run_says_that_the_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C while the answer is made: nothing has to be run again, and nobody would know otherwise."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.cli.running.print_cells", interrupted)
    told = run("simulate", RACK, "duration_s=40", "sweep={seed: [1, 2]}", "--no-plots", "--out", str(tmp_path / "out"))
    assert told.exit_code == 130
    assert told.stderr.splitlines()[-1] == f"interrupted: 2 of 2 runs kept in {tmp_path / 'out'}"


# ---- terminals


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        """Without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", self.getvalue())


def narrow(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 60 columns, for the rest of a test."""
    found = Screen()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def test_a_table_is_divided_between_its_columns(monkeypatch: pytest.MonkeyPatch):
    """So that nothing is cut: each part names the rows, and every number stands whole in one of them."""
    screen = narrow(monkeypatch)
    columns = ["", *(f"column {k}" for k in range(8))]
    rows = [[f"timeout_s={row},routing=power_of_d", *(f"{row}.{k}00 ms" for k in range(8))] for row in range(3)]
    terminal.print_table("A title", columns, rows)
    lines = screen.shown().splitlines()
    assert all(len(line) <= 60 for line in lines)
    for row in rows:
        parts = [line.split("   ") for line in lines if line.startswith(row[0])]
        assert [cell.strip() for part in parts for cell in part[1:] if cell.strip()] == row[1:]


def test_long_names_of_rows_break_behind_commas(monkeypatch: pytest.MonkeyPatch):
    """Where no column fits beside them, its heading breaks first, at blanks; a name never breaks inside of a value."""
    screen = narrow(monkeypatch)
    names = [f"max_attempts={n},execution_timeout_s=10" for n in (1, 3)]
    rows = [[name, "0.1 s", "1,000,000,000,000,000,000 ms"] for name in names]
    terminal.print_table("A title", ["cell", "a run takes, simulated", "wide"], rows)
    lines = [line.rstrip() for line in screen.shown().splitlines()]
    assert all(len(line) <= 60 for line in lines)
    assert [line for line in lines if line.endswith("a run takes,")]
    assert [line for line in lines if re.fullmatch(r"cell +simulated", line)]
    broken = [place for place, line in enumerate(lines) if re.fullmatch(r"max_attempts=\d, +1,0\S+ ms", line)]
    assert [lines[place + 1] for place in broken] == ["execution_timeout_s=10"] * 2


def test_a_pipe_gets_whole_rows(capsys: pytest.CaptureFixture[str]):
    """However long, for grep."""
    terminal.print_table("A title", ["", *map(str, range(40))], [["row", *(["1,000 ms"] * 40)]])
    assert capsys.readouterr().out.splitlines()[-1].count("1,000 ms") == 40


def test_facts_and_sentences_wrap_between_words(monkeypatch: pytest.MonkeyPatch):
    """Facts behind their names."""
    screen = narrow(monkeypatch)
    terminal.print_facts([("tasks", "completed 3,329, " * 6)], 11)
    terminal.complain(["warning: " + "timeout_s=2,routing=random " * 5])
    lines = [line.rstrip() for line in screen.shown().splitlines()]
    assert lines[0] == "tasks       completed 3,329, completed 3,329, completed"
    assert all(line.startswith(" " * 12) for line in lines[1:3])
    assert lines[3] == "warning: timeout_s=2,routing=random"


def test_a_bar_shows_runs_cell_and_share_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """From the first second, whether or not a run has ended by then."""
    screen = narrow(monkeypatch)
    monkeypatch.setattr(terminal, "BAR_AFTER_S", 0.0)
    patience_ends = monotonic() + 30
    with terminal.progress("small (sim)", 4) as advance:
        while "small (sim): 0 of 4" not in screen.shown():
            assert monotonic() < patience_ends
        advance(0.25, "workers=2 r0")
        while "workers=2 r0" not in screen.shown():
            assert monotonic() < patience_ends
    assert re.search(r"small \(sim\): 1 of 4  25% [-\d:]+ workers=2 r0", screen.shown())


def test_without_a_terminal_each_run_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """On stderr, of a command that takes long; none if it is to be quiet."""
    monkeypatch.setattr(terminal, "LINES_AFTER_S", 0.0)
    with terminal.progress("small (sim)", 2) as advance:
        advance(0.5, "workers=2 r0")
        advance(1.0, "workers=4 r0")
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"small \(sim\): 1 of 2 runs in .+, about .+ left: workers=2 r0", first)
    assert re.fullmatch(r"small \(sim\): 2 of 2 runs in .+: workers=4 r0", last)
    with terminal.progress("small (size)", None) as advance:
        advance(0.2, "workers=2 r0")
        advance(0.3, "workers=4 r0")
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"small \(size\): 1 run in [^,]+: workers=2 r0", first)
    assert re.fullmatch(r"small \(size\): 2 runs in [^,]+: workers=4 r0", last)
    with terminal.progress("small (live)") as advance:
        advance(0.5)
    assert re.fullmatch(r"small \(live\): ended after .+\n", capsys.readouterr().err)
    monkeypatch.setattr(terminal, "_quiet", True)
    with terminal.progress("small (sim)", 2) as advance:
        advance(0.5, "workers=2 r0")
    assert capsys.readouterr().err == ""


def test_a_short_command_without_a_terminal_says_nothing_of_its_progress(capsys: pytest.CaptureFixture[str]):
    """Its results come at once."""
    with terminal.progress("small (sim)", 2) as advance:
        advance(1.0, "workers=4 r0")
    assert capsys.readouterr().err == ""
