"""Make the stubs beside their sources, or below the directory given."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
SOURCES = sorted(Path(__file__).parent.glob("*.proto"))


def generate(out: Path) -> None:
    """Exits where a source has a fault: the compiler has said which."""
    protoc = import_module("grpc_tools.protoc")
    names = [str(path.relative_to(ROOT)) for path in SOURCES]
    if protoc.main(["protoc", f"-I{ROOT}", f"--python_out={out}", f"--pyi_out={out}", *names]):
        raise SystemExit(1)
    for name in names:
        stub = out / name.replace(".proto", "_pb2.py")
        text = stub.read_text().replace("_descriptor_pool.Default()", "_POOL")
        importing = "from google.protobuf import descriptor_pool as _descriptor_pool"
        stub.write_text(text.replace(importing, "from orchestrator.cluster.wire.proto import POOL as _POOL"))
        types = stub.with_suffix(".pyi")
        types.write_text("# mypy: disable-error-code=type-arg\n" + types.read_text())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
