"""Count pairs of words in a few hundred files: by one process, then by four workers, one of which is killed on the way.

    python examples/words/run.py [--files 300] [--words 60000] [--workers 4]

It says how much faster the cluster was, and checks that every result is right and that nothing was run again whose
result had arrived. `examples/words/words.yaml` rehearses the same job: give it the service times that are printed.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from words import add, count

from orchestrator import Client
from orchestrator.rehearsal.local_cluster import LocalCluster

WORDS = 60_000
"""Of each file, about."""
TOGETHER = 25
"""Files whose counts one task adds up."""


def write_texts(folder: Path, files: int, words: int) -> list[Path]:
    """The same ones each time."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices("aeiounrstlm", k=rng.randint(2, 9))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    written = []
    for number in range(files):
        file = folder / f"{number:03}.txt"
        file.write_text(" ".join(rng.choices(vocabulary, weights, k=rng.randint(words // 2, 3 * words // 2))))
        written.append(file)
    return written


def alone(files: list[Path]) -> tuple[dict[str, int], list[float]]:
    """The result, and the seconds that each file takes."""
    counts, took_s = [], []
    for file in files:
        begin = time.perf_counter()
        counts.append(count(file))
        took_s.append(time.perf_counter() - begin)
    return add(counts), took_s


def on_a_cluster(files: list[Path], workers: int) -> tuple[dict[str, int], float, dict[str, float]]:
    """The result, the seconds that it took, and when the result of each file was there."""
    options = ["--app", "words:app", "--quiet"]
    policies = ["detection.timeout_s=3", "--quiet"]
    with (
        contextlib.chdir(Path(__file__).parent),  # where workers find words.py
        LocalCluster(workers, capacity=1, options=options, policies=policies) as cluster,
        Client(cluster.address) as client,
    ):
        begin = time.perf_counter()
        futures = {client.submit(count, file): file for file in files}
        there: dict[str, float] = {}
        for future in client.as_completed(futures):
            there[futures[future].name] = time.monotonic()
            if len(there) == len(files) // 3:
                cluster.worker("w2").kill()
        counts = [future.result() for future in futures]
        parts = [counts[first : first + TOGETHER] for first in range(0, len(counts), TOGETHER)]
        total = add(list(client.map(add, parts)))
        return total, time.perf_counter() - begin, there


def run_again(folder: Path, there: dict[str, float]) -> tuple[int, list[str]]:
    """How many executions began once more, and those of them whose result had arrived."""
    begun = [line.split() for line in (folder / "executions").read_text().splitlines()]
    times = Counter(name for name, _ in begun)
    return sum(times.values()) - len(times), [name for name, at in begun if float(at) > there[name]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--words", type=int, default=WORDS, help="of each file, about")
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_texts(folder, given.files, given.words)
        begin = time.perf_counter()
        expected, took_s = alone(files)
        alone_s = time.perf_counter() - begin
        (folder / "executions").unlink()
        total, cluster_s, there = on_a_cluster(files, given.workers)
        again, needlessly = run_again(folder, there)
    mean_s = statistics.mean(took_s)
    print(f"{len(files)} files; each takes {1000 * mean_s:.1f} ms, cv {statistics.pstdev(took_s) / mean_s:.2f}")
    print(f"one process: {alone_s:.2f} s")
    print(f"{given.workers} workers, one killed: {cluster_s:.2f} s, {alone_s / cluster_s:.2f} times as fast")
    print(f"begun once more: {again}; of these after their result had arrived: {len(needlessly)}")
    print("every result is right" if total == expected else "the results differ")
    sys.exit(0 if total == expected and not needlessly else 1)


if __name__ == "__main__":
    main()
