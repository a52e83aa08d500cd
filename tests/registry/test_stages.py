"""Stage, alias and tag are one thing, moves keep their order, and of two promoters at once one wins."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from faults import FaultProxy

from pokebattle.registry import description, promotion, promotion_lock, stages
from pokebattle.registry.stages import ARCHIVED, NONE, PRODUCTION, STAGING

StageTable = Callable[[str], dict[int, tuple[str, tuple[str, ...], str]]]
ALONE = {
    NONE: (NONE, (), NONE),
    STAGING: (STAGING, ("staging",), STAGING),
    PRODUCTION: (PRODUCTION, ("production",), PRODUCTION),
    ARCHIVED: (ARCHIVED, (), ARCHIVED),
}
MOVE = """
import os, sys
from pokebattle.registry import promotion, promotion_lock, stages
from nbtrack.mlflow_rest import MlflowRest
uri, name, version, stage, user, limit = sys.argv[1:]
rest, calls = MlflowRest(uri), [0]
if int(limit) > 0:
    promotion_lock.LEASE = 0.05  # the only other one was killed before
planned = promotion.plan(stages.read(rest, name), int(version), stage)
print("planned", flush=True)
sys.stdin.readline()

def counted(self, method, path, /, _call=MlflowRest.call, **fields):
    answer = _call(self, method, path, **fields)
    calls[0] += method != "GET" and not path.endswith("search")
    if calls[0] == int(limit):
        os.kill(os.getpid(), 9)
    return answer

MlflowRest.call = counted
try:
    promotion.move(rest, planned, f"{user} wants it", user=user)
except stages.RegistryError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(calls[0])
"""


def mover(uri: str, name: str, version: int, stage: str, user: str, limit: int = -1) -> subprocess.Popen[str]:
    """A process that has planned a move, and makes it after a line on stdin; it is killed after `limit` changes."""
    command = [sys.executable, "-c", MOVE, uri, name, str(version), stage, user, str(limit)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **pipes)
    assert process.stdout.readline() == "planned\n"
    return process


def move(rest: Any, name: str, version: int, stage: str, why: str = "it is good") -> list[str]:
    return promotion.move(rest, promotion.plan(stages.read(rest, name), version, stage), why, user="ana")


@pytest.mark.parametrize(("text", "named"), [("3", ("battle_winner", 3)), ("other/12", ("other", 12))])
def test_a_version_is_named_by_number_or_by_model_and_number(text: str, named: tuple[str, int]) -> None:
    assert stages.parse_version(text) == named


@pytest.mark.parametrize("text", ["v3", "battle_winner", "/3", "other/", "3.5", ""])
def test_what_names_no_version_is_refused(text: str, verb: Callable[..., Result]) -> None:
    with pytest.raises(stages.RegistryError, match=r"version: expected a number or name/number, as in battle_winner/3"):
        stages.parse_version(text)
    assert verb("gate", text).exit_code == 1


def test_stage_alias_and_tag_go_together_on_all_that_move(rest: Any, shelf: str, stage_table: StageTable) -> None:
    move(rest, shelf, 1, STAGING)
    assert stage_table(shelf) == {1: ALONE[STAGING], **dict.fromkeys((2, 3, 4), ALONE[NONE])}
    move(rest, shelf, 1, PRODUCTION)
    move(rest, shelf, 2, STAGING)
    move(rest, shelf, 3, STAGING)
    assert stage_table(shelf) == {1: ALONE[PRODUCTION], 2: ALONE[ARCHIVED], 3: ALONE[STAGING], 4: ALONE[NONE]}
    move(rest, shelf, 3, PRODUCTION, "fewer errors")
    assert stage_table(shelf) == {1: ALONE[ARCHIVED], 2: ALONE[ARCHIVED], 3: ALONE[PRODUCTION], 4: ALONE[NONE]}
    version = stages.read(rest, shelf).versions[3]
    assert {key: version.tags[f"stage.{key}"] for key in ("by", "why")} == {"by": "ana", "why": "fewer errors"}
    assert "| Staging → Production | ana | fewer errors |" in version.description
    assert "version 3 took its place" in stages.read(rest, shelf).versions[1].description
    assert f"[version 3](#/models/{shelf}/versions/3)" in stages.read(rest, shelf).description
    assert stages.read(rest, shelf).disagreements() == []


@pytest.mark.parametrize(
    ("steps", "version", "stage", "expected"),
    [
        ([], 1, PRODUCTION, "is in None and cannot go to Production: Staging comes before Production"),
        ([STAGING, PRODUCTION], 1, STAGING, "is in Production and cannot go to Staging: promote another version"),
        ([], 9, STAGING, "has no version 9; its versions are 1, 2, 3, 4"),
    ],
)
def test_no_step_is_left_out(
    rest: Any, shelf: str, stage_table: StageTable, steps: list[str], version: int, stage: str, expected: str
) -> None:
    for step in steps:
        move(rest, shelf, 1, step)
    before = stage_table(shelf)
    with pytest.raises(stages.RegistryError) as error:
        promotion.promote(shelf, version, stage)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert stage_table(shelf) == before


def test_a_model_that_is_not_there_is_named(rest: Any, verb: Callable[..., Result]) -> None:
    done = verb("promote", "1", "--to", "Staging", "--model-name", "nobody")
    assert done.exit_code == 1
    said = done.stderr
    assert said.startswith(f"Error: {rest.uri} has no registered model nobody: train.ipynb registers a model") and (
        said.count("\n") == 1 and "-p register_model True" in said
    )


def test_a_server_that_goes_away_is_named(rest: Any, shelf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(rest.uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        with pytest.raises(stages.RegistryError) as error, promotion.connected(shelf) as proxied:
            assert stages.read(proxied, shelf).versions
            proxy.mode = "refuse"
            stages.read(proxied, shelf)
    assert str(error.value).startswith(f"{proxy.uri} does not answer any more (")


def test_rollback_goes_back_step_by_step_and_says_why(
    rest: Any, shelf: str, stage_table: StageTable, verb: Callable[..., Result]
) -> None:
    for version in (1, 2, 3):
        move(rest, shelf, version, STAGING)
        move(rest, shelf, version, PRODUCTION)
    for now, was in ((2, 3), (1, 2)):
        planned = promotion.plan_back(stages.read(rest, shelf))
        assert (planned.version, planned.holders[PRODUCTION]) == (now, was)
        promotion.move(rest, planned, "it was worse", user="ben")
        assert stage_table(shelf) == {one: ALONE[PRODUCTION if one == now else ARCHIVED] for one in (1, 2, 3)} | {
            4: ALONE[NONE]
        }
    with pytest.raises(stages.RegistryError, match="version 1 is the first in Production"):
        promotion.plan_back(stages.read(rest, shelf))
    move(rest, shelf, 4, STAGING)
    move(rest, shelf, 4, PRODUCTION)
    assert promotion.plan_back(stages.read(rest, shelf)).version == 1
    done = verb("history", "--model-name", shelf)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert sum("Archived → Production" in line and line.endswith("ben: it was worse") for line in lines) == 2
    assert lines[-2:] == ["Production: version 4", "Staging: none"]


def test_of_two_promoters_at_once_one_wins_and_the_other_gets_an_error(
    rest: Any, shelf: str, stage_table: StageTable
) -> None:
    for version, other in ((1, 2), (3, 4)):
        both = [mover(rest.uri, shelf, version, STAGING, "ana"), mover(rest.uri, shelf, other, STAGING, "ben")]
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60) for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes == [0, 1], said
        ((_, error),) = [text for text, process in zip(said, both, strict=True) if process.returncode]
        assert (
            re.match(r"BusyError: \w+ has been changing the stages of|MeanwhileError: the stages of", error)
            and error.count("\n") == 1
        )
        assert sum(stage == STAGING for stage, _, _ in stage_table(shelf).values()) == 1
        assert stages.read(rest, shelf).disagreements() == []


def test_a_move_is_refused_if_the_stages_have_changed_since_it_was_planned(
    rest: Any, shelf: str, stage_table: StageTable
) -> None:
    planned = promotion.plan(stages.read(rest, shelf), 2, STAGING)
    move(rest, shelf, 1, STAGING)
    with pytest.raises(promotion.MeanwhileError, match=r"changed meanwhile by ana at .*: Staging contains version 1"):
        promotion.move(rest, planned, "too late", user="ben")
    assert stage_table(shelf)[2] == ALONE[NONE]


def test_killed_anywhere_it_is_as_before_or_completed_by_the_next(
    rest: Any, shelf: str, stage_table: StageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (STAGING, PRODUCTION):
        move(rest, shelf, 1, step)
    move(rest, shelf, 2, STAGING)
    whole = mover(rest.uri, shelf, 3, STAGING, "eve")
    n_changes = int(whole.communicate("\n", timeout=60)[0])
    assert n_changes > 10
    halves = 0
    for limit in range(1, n_changes + 1):
        before = stage_table(shelf)
        version = 2 if before[3] == ALONE[STAGING] else 3
        killed = mover(rest.uri, shelf, version, STAGING, "eve", limit)
        killed.communicate("\n", timeout=60)
        assert killed.returncode == -9
        disagreed = bool(stages.read(rest, shelf).disagreements())
        halves += disagreed
        if limit < n_changes:
            with (
                pytest.raises(promotion_lock.BusyError, match="eve has been changing the stages of"),
                promotion_lock.hold_lock(rest, shelf, "ana"),
            ):
                pass
        with monkeypatch.context() as patch:
            patch.setattr(promotion_lock, "LEASE", 0.0)  # it has expired
            assert bool(promotion.complete(rest, shelf)) == disagreed
        model = stages.read(rest, shelf)
        assert model.disagreements() == []
        after = stage_table(shelf)
        assert after[1] == ALONE[PRODUCTION]
        if after != before:
            assert after[version] == ALONE[STAGING] and model.events()[-1]["by"] == "eve"
    assert halves >= 5 and after != before


def test_what_a_hand_has_moved_is_said_and_repaired(
    rest: Any, shelf: str, stage_table: StageTable, verb: Callable[..., Result]
) -> None:
    move(rest, shelf, 1, STAGING)
    rest.call("POST", "registered-models/alias", name=shelf, alias="staging", version="2")
    rest.call("POST", "model-versions/set-tag", name=shelf, version="3", key="stage", value="Production")
    rest.call(
        "POST",
        "model-versions/transition-stage",
        name=shelf,
        version="4",
        stage="Staging",
        archive_existing_versions=False,
    )
    history = verb("history", "--model-name", shelf)
    assert history.exit_code == 1
    said = history.stdout
    for line in (
        "version 2 is in None and has the alias staging",
        "version 3 is in None, its tag stage says Production",
        "version 4 is in Staging, its tag stage says None",
        "Staging contains the versions",
    ):
        assert f"DISAGREES {line}" in said
    promoted = verb("promote", "4", "--to", "Staging", "--model-name", shelf)
    assert promoted.exit_code == 0
    said = promoted.stdout
    assert "repaired: version 3 is in None, its tag stage says Production" in said
    assert said.splitlines()[-1] == f"{shelf} version 4 is in Staging already"
    assert stage_table(shelf) == {1: ALONE[ARCHIVED], 2: ALONE[NONE], 3: ALONE[NONE], 4: ALONE[STAGING]}


def test_a_claim_that_runs_out_changes_nothing_more(
    rest: Any, shelf: str, stage_table: StageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion_lock, "WORK", -1.0)
    with pytest.raises(promotion_lock.BusyError, match="took too long"):
        move(rest, shelf, 1, STAGING)
    assert stage_table(shelf) == dict.fromkeys((1, 2, 3, 4), ALONE[NONE])
    monkeypatch.undo()
    move(rest, shelf, 1, STAGING)  # the lock was released


def test_what_people_wrote_stays(rest: Any, shelf: str) -> None:
    words = "A person's words.\n\nMore | of it."
    rest.call("PATCH", "model-versions/update", name=shelf, version="1", description=words)
    for version in (1, 2, 1):
        move(rest, shelf, version, STAGING, f"for {version}: why | not, " * 40)
    model = stages.read(rest, shelf)
    assert model.versions[1].description.startswith(f"{words}\n\n## History\n\n| when, UTC | move | who | why |")
    assert model.versions[1].description.count("## History") == 1
    assert len(model.events()) == 3 + 2


def test_a_page_keeps_to_its_size_and_to_the_latest() -> None:
    events = [
        {
            "when": f"2026-11-26T11:22:{second:02}.000Z",
            "from": NONE,
            "to": STAGING,
            "by": "ana",
            "why": f"reason {second}: " + "why | not, " * 40,
        }
        for second in range(40)
    ]
    text = description.of_version("Words.\n\n## Gates\n\n| old |", events, "| gate |")
    assert len(text) <= description.LIMIT and text.startswith("Words.\n\n## Gates\n\n| gate |\n\n## History")
    assert "reason 39" in text and "reason 3:" not in text and text.endswith(description.EARLIER)
    assert description.of_version(text, events[:1]).count("| gate |") == 1
