"""What workers offer and tasks require: labels, each a name with a value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

LABEL = re.compile(r"([A-Za-z0-9_./-]{1,63})=([A-Za-z0-9_./-]{0,63})")
MOST_LABELS = 16
"""Of one worker, or of one task."""


def labels_text(labels: Mapping[str, str] | Iterable[str] | str) -> str:
    """One text for the same labels in whatever order, by name: gpu=a100,zone=b. Empty for none.

    `labels`: a mapping, texts of the form name=value, or one text of these with commas. ValueError where one is none.
    """
    if isinstance(labels, str):
        texts = labels.split(",") if labels else []
    elif isinstance(labels, Mapping):
        texts = [f"{name}={value}" for name, value in labels.items()]
    else:
        texts = list(labels)
    found: dict[str, str] = {}
    for text in texts:
        label = LABEL.fullmatch(text)
        if label is None:
            expected = "expected name=value of letters, digits and _ . / -, at most 63 of each"
            raise ValueError(f"a label is {text!r:.80}, {expected}")
        name, value = label.groups()
        if found.setdefault(name, value) != value:
            raise ValueError(f"a label is given twice: {name}={found[name]} and {text}")
    if len(found) > MOST_LABELS:
        raise ValueError(f"there are {len(found)} labels, expected at most {MOST_LABELS}")
    return ",".join(f"{name}={found[name]}" for name in sorted(found))
