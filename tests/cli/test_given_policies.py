"""Policies as a person gives them to a coordinator."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.given_policies import SettingsError, read_policies
from orchestrator.policies.settings import Policies


def test_nothing_given_is_the_defaults():
    """As a scenario that says nothing of its policies has them."""
    assert read_policies() == Policies()


def test_parameters_without_a_kind_are_those_of_the_default_one():
    """It need not be said again."""
    read = read_policies(None, ["detection.timeout_s=9"])
    assert read.detection.model_dump(include={"kind", "timeout_s"}) == {"kind": "timeout", "timeout_s": 9}


def test_keys_override_the_file(tmp_path: Path):
    """With or without the prefix that they have in a scenario; another kind starts from its own defaults."""
    file = tmp_path / "policies.yaml"
    file.write_text("routing: {kind: power_of_d, d: 3}\ndetection: {kind: timeout, timeout_s: 9}\n")
    read = read_policies(
        file, ["policies.routing.kind=random", "detection.heartbeat_s=0.5", "execution_timeout_s=null"]
    )
    assert read.model_dump(include={"routing", "execution_timeout_s"}, exclude_unset=True) == {
        "routing": {"kind": "random"},
        "execution_timeout_s": None,
    }
    assert read.detection.model_dump(include={"timeout_s", "heartbeat_s"}) == {"timeout_s": 9, "heartbeat_s": 0.5}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("routing.kind=astrology", "policies.routing: "),
        ("detection.timeout_s=-1", "policies.detection.timeout_s: "),
        ("detection.patience=1", "policies.detection.patience: "),
        ("network.loss=0.5", "policies.network: "),
        ("nonsense", "nonsense: expected KEY=VALUE"),
        ("routing={", "routing={: this is no YAML"),
        ("execution_timeout_s.deep.er=1", "policies.execution_timeout_s"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_key(override: str, told: str):
    """A sentence each."""
    with pytest.raises(SettingsError) as error:
        read_policies(None, [override])
    assert error.value.problems[0].startswith(told)


def test_a_file_that_holds_no_policies_is_told(tmp_path: Path):
    """Missing, or no mapping."""
    with pytest.raises(SettingsError, match="No such file"):
        read_policies(tmp_path / "nothing.yaml")
    file = tmp_path / "list.yaml"
    file.write_text("- routing\n")
    with pytest.raises(SettingsError, match="expected a mapping"):
        read_policies(file)
