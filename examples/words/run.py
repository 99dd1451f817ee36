"""Count pairs of words in a few hundred files: by one process, then by four workers, one of which is killed on the way.

    python examples/words/run.py [--files 300] [--words 60000] [--workers 4]

It says how much faster the cluster was, and checks that every result is right and that nothing was run again whose
result had arrived. `examples/words/words.yaml` rehearses the same job: give it the service times that are printed.
"""

import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.job import Job, at_least, compare, parser_of, parts
from examples.words.words import add, count

WORDS = 60_000
"""Of each file, about."""


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


def total(_: Path, counts: list[Any], each: Callable[..., Iterable[Any]]) -> dict[str, int]:
    """Of all files."""
    return add(list(each(add, parts(counts))))


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--words", type=at_least(2), default=WORDS, help="of each file, about")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "alone")
        folder.mkdir()
        files = write_texts(folder, given.files, given.words)
        right = compare(Job("examples.words.words:app", count, total), files, given.workers)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
