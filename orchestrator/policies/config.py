"""What every configuration model is made of: strict parsing, finite numbers, policies by dotted path."""

from __future__ import annotations

import importlib
import random
import re
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.core.ports import PolicyError
from orchestrator.policies.protocols import objection, signature_of


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
    """A user's own policy, `kind: package.module:Class`. Every other key goes to its constructor.

    A constructor with a parameter `rng` receives a `random.Random` of its own.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    protocol: ClassVar[type]
    """What the core asks of such a policy."""
    extensions: ClassVar[tuple[type, ...]] = ()
    """What the core also uses if such a policy has it."""
    role: ClassVar[str]
    """What such a policy is, in a sentence: "a queue"."""

    kind: Annotated[str, Field(pattern=DOTTED_PATH.pattern)]

    @model_validator(mode="after")
    def _usable(self) -> Custom:
        cls = self.load()
        if why := objection(cls, self.protocol, self.extensions, self.role):
            raise ValueError(f"{self.kind} {why}")
        signature = signature_of(cls)
        if signature is not None:
            supplied = {name: None for name in ("rng", "now") if name in signature.parameters}
            try:
                signature.bind(**supplied, **self.parameters())
            except TypeError as error:
                expected = "expected a class that can be built from these keys"
                raise ValueError(f"{self.kind} does not take these parameters: {error}, {expected}") from None
        return self

    def parameters(self) -> dict[str, Any]:
        """The keys for the constructor."""
        return dict(self.model_extra or {})

    def load(self) -> Any:
        """What `kind` names. ValueError if it can't be imported."""
        module_name, _, class_name = self.kind.partition(":")
        try:
            return getattr(importlib.import_module(module_name), class_name)
        except Exception as error:  # a user's module may fail in any way while it is imported
            expected = "expected a class that can be imported"
            raise ValueError(f"cannot import {self.kind}: {type(error).__name__}: {error}, {expected}") from None

    def make(self, rng: random.Random | None = None) -> Any:
        """The policy itself. PolicyError if its constructor raises."""
        signature = signature_of(self.load())
        takes_rng = rng is not None and signature is not None and "rng" in signature.parameters
        return self.instance(**({"rng": rng} if takes_rng else {}))

    def instance(self, **supplied: Any) -> Any:
        """The policy, from the user's keys and what the coordinator supplies. PolicyError if its constructor raises."""
        cls = self.load()
        try:
            return cls(**supplied, **self.parameters())
        except Exception as error:
            role = self.role.partition(" ")[2]
            raise PolicyError(f"the {role} {self.kind} raised in __init__: {type(error).__name__}: {error}") from error
