"""The wheel, installed into an empty environment outside of the tree, does what the tree does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_house import ROOT

PYTHON = os.environ.get("WHEEL_PYTHON", sys.executable)
"""The interpreter of the empty environment."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHORT = ["duration_s=4", "warmup_s=0", "faults.0.at_s=1", "faults.0.restart_after_s=1"]
"""Overrides that make the first example a matter of seconds."""

Command = Callable[..., str]

pytestmark = pytest.mark.timeout(900)


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that knows nothing of the tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def succeed(*command: str | Path, cwd: Path) -> str:
    done = call(*command, cwd=cwd)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its pinned dependencies, and nothing else."""
    base = tmp_path_factory.mktemp("wheel")
    python = base / "environment" / "bin" / "python"
    # Our own pip installs into it, and compiles nothing: most of it is never imported.
    succeed(PYTHON, "-m", "venv", "--without-pip", base / "environment", cwd=base)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    probe = call(*pip, "download", "--no-deps", "--dest", base / "probe", PROJECT["dependencies"][0], cwd=base)
    if probe.returncode != 0:
        pytest.skip(f"needs a package registry: {(probe.stderr.strip() or 'no answer').splitlines()[-1]}")
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "out", "tests")
    shutil.copytree(ROOT, base / "tree", symlinks=True, ignore=ignored)
    succeed(*pip, "wheel", "--no-deps", "--wheel-dir", base / "wheels", base / "tree", cwd=base)
    shutil.rmtree(base / "tree")
    (wheel,) = (base / "wheels").glob("*.whl")
    succeed(*pip, "install", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel, cwd=base)
    return base / "environment" / "bin"


@pytest.fixture(scope="module")
def run(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The installed command, in a directory that is empty at first."""
    here = tmp_path_factory.mktemp("elsewhere")
    return lambda *arguments: succeed(environment / "orchestrator", *arguments, cwd=here)


def test_the_wheel_has_the_projects_name_and_version(environment: Path, tmp_path: Path):
    """The distribution is cluster-rehearsal, its packages are orchestrator and sim, and its licence comes with it."""
    code = (
        "import importlib.metadata as m, orchestrator, sim\n"
        "d = m.distribution('cluster-rehearsal')\n"
        "print(orchestrator.__version__, d.metadata['License-Expression'], d.metadata.get_all('License-File'))\n"
        "print(orchestrator.__file__, sim.__file__)"
    )
    told, places = succeed(environment / "python", "-c", code, cwd=tmp_path).splitlines()
    assert told == f"{PROJECT['version']} Apache-2.0 ['LICENSE']"
    assert all(place.startswith(str(environment.parent)) for place in places.split())


def test_the_wheel_takes_a_scenario_through_both_worlds(run: Command):
    """From the list of examples to a comparison, as the README has it."""
    assert "worker-crash " in run("examples")
    assert run("init").startswith("wrote worker-crash.yaml")
    assert "results in sim" in run("simulate", "worker-crash.yaml", *SHORT, "--no-plots", "--out", "sim")
    assert "results in live" in run("live", "worker-crash.yaml", *SHORT, "--no-plots", "--out", "live")
    assert "results in compared" in run("compare", "sim", "live", "--out", "compared")
