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
        ("routing.kind=astrology", 'routing.kind: unknown kind "astrology", expected one of least_loaded'),
        ("policies.detection.timeout_s=-1", "detection.timeout_s: is -1, expected more than 0"),
        ("detection.timout_s=1", "detection.timout_s: unknown key, did you mean timeout_s?"),
        ("network.loss=0.5", "network: unknown key, expected one of detection"),
        ("retry.poison_after=3", "retry.poison_after: was renamed, expected retry.max_worker_kills"),
        ("nonsense", "nonsense: is no override, expected key=value"),
        ("routing={", "routing: "),
        ("execution_timeout_s.deep.er=1", "execution_timeout_s"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_key(override: str, told: str):
    """A sentence each, in the words of a scenario."""
    with pytest.raises(SettingsError) as error:
        read_policies(None, [override])
    assert error.value.problems[0].startswith(told)


def test_what_is_wrong_in_a_file_is_told_with_its_place(tmp_path: Path):
    """File, line and column: of a number, of an old key, of a class without its protocol."""
    file = tmp_path / "policies.yaml"
    file.write_text(
        "routing: {kind: 'orchestrator.policies.queueing:Fifo'}\n"
        "detection: {timeout_s: -1}\n"
        "retry:\n"
        "  poison_after: 2\n"
    )
    with pytest.raises(SettingsError) as error:
        read_policies(file)
    routing, detection, retry = error.value.problems
    assert routing.startswith(f"{file}:1:17: routing.kind: orchestrator.policies.queueing:Fifo lacks joined(worker)")
    assert detection == f"{file}:2:24: detection.timeout_s: is -1, expected more than 0"
    assert retry == f"{file}:4:3: retry.poison_after: was renamed, expected retry.max_worker_kills"


def test_a_file_that_holds_no_policies_is_told(tmp_path: Path):
    """Missing, or no mapping."""
    with pytest.raises(SettingsError, match="no such file"):
        read_policies(tmp_path / "nothing.yaml")
    file = tmp_path / "list.yaml"
    file.write_text("- routing\n")
    with pytest.raises(SettingsError, match="is a list, expected a mapping"):
        read_policies(file)
