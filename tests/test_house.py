"""Rules of the house that no type checker sees: a core without clock, chance or hash order; clean files."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PURE = sorted([*(ROOT / "orchestrator/core").rglob("*.py"), *(ROOT / "orchestrator/policies").rglob("*.py")])

BANNED_MODULES = {"asyncio", "grpc", "numpy", "secrets", "simpy", "threading", "time", "uuid"}
BANNED_NAMES = {
    "hash",
    "os.urandom",
    "os.getrandom",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
}
SET_TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}
ORDER_FREE = {"all", "any", "frozenset", "len", "set", "sorted", "sum"}
ORDERED = {"enumerate", "filter", "iter", "list", "map", "reversed", "tuple", "zip"}


class Purity(ast.NodeVisitor):
    """Collects the offences of one module; names are followed through `import ... as` and set annotations."""

    def __init__(self, tree: ast.Module) -> None:
        self.offences: list[str] = []
        self.full_names: dict[str, str] = {}
        self.sets = {name for node in ast.walk(tree) for name in names_of_sets(node)}
        self.visit(tree)

    def report(self, node: ast.AST, what: str) -> None:
        self.offences.append(f"{getattr(node, 'lineno', 0)}: {what}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            self.full_names[alias.asname or top] = alias.name if alias.asname else top
            if top in BANNED_MODULES:
                self.report(node, f"imports {alias.name}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module.partition(".")[0] in BANNED_MODULES:
            self.report(node, f"imports {module}")
        for alias in node.names:
            self.full_names[alias.asname or alias.name] = name = f"{module}.{alias.name}"
            self.check_name(node, name)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.check_name(node, self.full_name(node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.check_name(node, self.full_name(node))
        if not isinstance(node.value, ast.Name):
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.full_name(node.func)
        if name == "id" or any(self.full_name(keyword.value) == "id" for keyword in node.keywords):
            self.report(node, "orders by id()")
        if name == "random.Random" and not node.args:
            self.report(node, "random.Random() without a seed")
        if name in ORDERED or (name in {"max", "min"} and node.keywords):
            self.check_order(*node.args)
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "pop" and not node.args:
                self.check_order(node.func.value)
            if node.func.attr in {"choice", "choices", "extend", "join", "sample"}:
                self.check_order(*node.args)
        if name in ORDER_FREE:
            node.args = [arg for arg in node.args if not isinstance(arg, ast.GeneratorExp)] + [
                part for arg in node.args if isinstance(arg, ast.GeneratorExp) for part in without_source(arg)
            ]
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self.check_order(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self.check_order(node.value)
        self.generic_visit(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp | ast.DictComp) -> None:
        self.check_order(*(part.iter for part in node.generators))
        self.generic_visit(node)

    visit_ListComp = visit_GeneratorExp
    visit_DictComp = visit_GeneratorExp

    def full_name(self, node: ast.expr) -> str:
        """`dt.now` as `datetime.datetime.now` after `from datetime import datetime as dt`."""
        if isinstance(node, ast.Attribute):
            return f"{self.full_name(node.value)}.{node.attr}"
        return self.full_names.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    def check_name(self, node: ast.AST, name: str) -> None:
        if name in BANNED_NAMES or (name.startswith("random.") and not name.startswith("random.Random")):
            self.report(node, f"uses {name}")

    def check_order(self, *nodes: ast.expr) -> None:
        for node in nodes:
            if is_set(node, self.sets):
                self.report(node, f"takes the order of a set: {ast.unparse(node)}")


def without_source(generator: ast.GeneratorExp) -> Iterator[ast.expr]:
    """What a generator computes for each element, its sources left out."""
    yield generator.elt
    for part in generator.generators:
        yield from part.ifs


def is_set(node: ast.expr | None, known: set[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in {"set", "frozenset"}
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return is_set(left, known) or is_set(right, known)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in known
    return False


def names_of_sets(node: ast.AST) -> Iterator[str]:
    """Names and attributes that a statement or a parameter makes a set."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=annotation):
            annotated: ast.expr | None = annotation
        case ast.arg(arg=name, annotation=annotated):
            pass
        case ast.Assign(targets=[ast.Name(id=name) | ast.Attribute(attr=name)], value=value):
            if is_set(value, set()):
                yield name
            return
        case _:
            return
    outer = annotated.value if isinstance(annotated, ast.Subscript) else annotated
    match outer:
        case ast.Name(id=kind) | ast.Attribute(attr=kind) if kind in SET_TYPES:
            yield name


def offences(source: str) -> list[str]:
    return Purity(ast.parse(source)).offences


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_core_and_policies_are_pure(path: Path):
    """Time and chance are passed in, and no choice depends on the order of a set or on hash()."""
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import time",
        "from time import monotonic as now",
        "import asyncio.events",
        "import numpy as np",
        "def f():\n    import simpy",
        "from grpc import aio",
        "import secrets",
        "import uuid\nx = uuid.uuid4()",
        "import datetime as d\nx = d.datetime.now()",
        "from datetime import datetime as dt\nx = dt.utcnow()",
        "import os\nx = os.urandom(8)",
        "import random\nx = random.random()",
        "import random as r\nx = r.choice([1, 2])",
        "from random import shuffle",
        "import random\nx = random.SystemRandom()",
        "import random\nrng = random.Random()",
        "x = hash('w1') % 8",
        "order = sorted(workers, key=id)",
        "for w in {1, 2}: pass",
        "for w in set(workers): pass",
        "idle: set[str] = set()\nfirst = next(iter(idle))",
        "class P:\n    def __init__(self): self.idle = set()\n    def choose(self): return self.idle.pop()",
        "def choose(idle: frozenset[str], rng): return rng.choice(list(idle))",
        "def choose(idle: set[str], rng): return rng.sample(idle, 2)",
        "def choose(idle: set[str], load): return min(idle, key=load.get)",
        "def choose(idle: set[str], busy: set[str]): return [w for w in idle - busy]",
        "def choose(idle: set[str]): return (*idle,)[0]",
    ],
)
def test_a_planted_impurity_is_seen(planted: str):
    """The purity test sees what it claims to see."""
    assert offences(planted)


def test_pure_code_passes_the_purity_test():
    """A passed generator, sorted sets and membership are no offence."""
    assert not offences(
        "import random\n"
        "from datetime import timedelta\n"
        "def choose(rng: random.Random, idle: set[str], loads: dict[str, int]) -> str:\n"
        "    if 'w1' in idle and all(loads[w] for w in idle): idle.discard('w1')\n"
        "    return rng.choice(sorted(w for w in idle if loads[w] == 0))\n"
        "def seeded(seed: int) -> random.Random: return random.Random(seed)\n"
    )


def project_files() -> list[Path]:
    """Every file under version control or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


HOSTS = r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|debian\.org|crates\.io"
FOREIGN = re.compile(rf"{HOSTS}|(?<![\w.])/(?:root|home|Users|work)/\w|--(?:extra-)?index-url[ =]\S*/".encode())


def test_no_file_names_a_registry_host_or_a_path_of_one_machine():
    """A clone builds and reads the same anywhere."""
    files = project_files()
    assert ROOT / "pyproject.toml" in files
    assert [f"{path}: {hit.group()!r}" for path in files if (hit := FOREIGN.search(path.read_bytes()))] == []


@pytest.mark.parametrize(
    ("template", "word"),  # apart, so that this file does not contain what it plants
    [
        ("https://{}.org/simple", "pypi"),
        ("open('/{}/ann/x.csv')", "home"),
        ("--{} file:///simple", "index-url"),
    ],
)
def test_a_planted_host_or_path_is_seen(template: str, word: str):
    """The search above sees what it claims to see."""
    assert FOREIGN.search(template.format(word).encode())


def test_every_package_carries_its_types():
    """Both top-level packages are marked as typed."""
    assert all((ROOT / package / "py.typed").is_file() for package in ("orchestrator", "sim"))
