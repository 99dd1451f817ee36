"""What every configuration model is made of: strict parsing, finite numbers, policies by dotted path."""

from __future__ import annotations

import importlib
import inspect
import random
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """A frozen model that takes no unknown key, no number in quotes, and nothing that is not finite."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

DOTTED_PATH = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


def tag_of(value: Any) -> str | None:
    """The union member that a policy's mapping (or model) belongs to: its kind, or `custom` for a dotted path."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if not isinstance(kind, str):
        return None
    return "custom" if DOTTED_PATH.match(kind) else kind


class Custom(BaseModel):
    """A user's own policy, `kind: package.module:Class`; every other key goes to its constructor.

    A constructor with a parameter `rng` receives a `random.Random` of its own.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: Annotated[str, Field(pattern=DOTTED_PATH.pattern)]

    @model_validator(mode="after")
    def _constructible(self) -> Custom:
        try:
            signature = inspect.signature(self.load())
            supplied = {name: None for name in ("rng", "now") if name in signature.parameters}
            signature.bind(**supplied, **self.parameters())
        except TypeError as error:
            raise ValueError(f"{self.kind} does not take these parameters: {error}") from None
        return self

    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def load(self) -> Any:
        """The class that `kind` names; ValueError where there is none."""
        module_name, _, class_name = self.kind.partition(":")
        try:
            return getattr(importlib.import_module(module_name), class_name)
        except Exception as error:  # the user's module may fail in any way while it is imported
            raise ValueError(f"cannot import {self.kind}: {type(error).__name__}: {error}") from None

    def make(self, rng: random.Random | None = None) -> Any:
        """The policy itself, with a random stream of its own where its constructor has a parameter `rng`."""
        cls = self.load()
        takes_rng = rng is not None and "rng" in inspect.signature(cls).parameters
        return cls(**self.parameters(), **({"rng": rng} if takes_rng else {}))
