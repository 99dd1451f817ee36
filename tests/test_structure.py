"""The structure of the code: no two modules import each other in a circle, no file is too long to be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_house import ROOT, project_files

PACKAGES = ("orchestrator", "sim")
MAX_LINES = 500


def modules(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """Every module of the packages by its dotted name. A package's `__init__` has the package's name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, name: str, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules among `known` that a module names in any import: at its top, in functions, under TYPE_CHECKING."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import name` needs the module `package.name` if there is one, else the package itself.
            named = [full if (full := f"{base}.{alias.name}") in known else base for alias in node.names]
        else:
            continue
        yield from (target for target in named if target in known)


def circle(root: Path, packages: tuple[str, ...]) -> list[str]:
    """Modules of which each imports the next, and the last is the first; empty if there are none."""
    known = modules(root, packages)
    graph = {name: set(imported(path, name, known)) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle():
    """Imports in functions and under TYPE_CHECKING count like any other."""
    assert circle(ROOT, PACKAGES) == []


PLANTED = {
    "at the top": ("from pack.b import B\n", "from pack.a import A\n"),
    "a plain import": ("import pack.b\n", "import pack.a as other\n"),
    "a module from its package": ("from pack import b\n", "from pack import a\n"),
    "in a function": ("from pack import b\n", "def f():\n    from pack.a import A\n"),
    "for types only": (
        "import pack.b\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.a import A\n",
    ),
    "relative": ("from . import b\n", "from .a import A\n"),
    "through the package": ("import pack.b\n", "from pack import A\n"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_circle_is_seen(case: str, tmp_path: Path):
    """The test above sees what it claims to see."""
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from pack.a import A\n" if case == "through the package" else "")
    for name, source in zip("ab", PLANTED[case], strict=True):
        (package / f"{name}.py").write_text(source)
    assert {"pack.a", "pack.b"} <= set(circle(tmp_path, ("pack",)))


def test_a_chain_is_no_circle(tmp_path: Path):
    """A module may import its own package's `__init__`, which does not import it."""
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from pack.a import A\n")
    (package / "a.py").write_text("import os\nfrom pack.b import B\n")
    (package / "b.py").write_text("B = 1\n")
    (package / "c.py").write_text("from pack import A\nimport pack.b\n")
    assert circle(tmp_path, ("pack",)) == []


def test_the_core_imports_only_itself_and_the_standard_library():
    """The core can be read, run and trusted without any library."""
    foreign = set()
    for path in (ROOT / "orchestrator/core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign |= {
                f"{path.name}: {name}"
                for name in names
                if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("orchestrator.core")
            }
    assert foreign == set()


def test_a_file_is_at_most_500_lines_long():
    """Generated stubs apart."""
    long = {
        str(path.relative_to(ROOT))
        for path in project_files()
        if path.suffix == ".py" and not path.stem.endswith("_pb2") and path.read_bytes().count(b"\n") > MAX_LINES
    }
    assert long == set()


HEAVY = (
    *("matplotlib", "numpy", "pandas", "pyarrow", "rich", "ruamel", "scipy", "sim", "simpy", "typer"),
    *(f"orchestrator.{package}" for package in ("analysis", "pictures", "rehearsal", "results", "scenario")),
)


@pytest.mark.parametrize("part", ["worker", "coordinator", "client"])
def test_the_product_starts_without_anything_heavy(part: str):
    """What a process of the cluster has in memory once it is imported, whatever imported it."""
    code = f"import sys, orchestrator.cluster.{part}\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


PUBLIC = """
import sys, orchestrator
heavy = {"grpc", "numpy", "pandas", "pydantic", "simpy"} & set(sys.modules)
assert not heavy, heavy
assert set(orchestrator.__all__) <= set(dir(orchestrator))
from orchestrator import Scenario, compare, load
print(Scenario.__module__, compare.__module__, load.__module__, orchestrator.__version__)
"""


def test_the_public_names_are_imported_when_they_are_used():
    """Importing the package costs nothing; each name leads to its one definition."""
    done = subprocess.run([sys.executable, "-c", PUBLIC], cwd=ROOT, capture_output=True, text=True, check=True)
    *homes, version = done.stdout.split()
    assert homes == ["orchestrator.scenario.schema", "orchestrator.analysis.comparison", "orchestrator.results.folders"]
    assert version[0].isdigit()


def test_a_name_that_is_not_public_is_an_attribute_error():
    """As of any module."""
    import orchestrator

    with pytest.raises(AttributeError, match="has no attribute 'Sceanrio'"):
        _ = orchestrator.Sceanrio
