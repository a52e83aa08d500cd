"""The command line: every verb's options, what is imported for it, and how wrong words and errors end."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

import nbtrack.cli
import pokebattle.cli
from nbtrack.cli import VerbGroup

WORDS = {  # what each verb takes
    "server": {"action", "--own", "--background"},
    "shared": {"action"},
    "accounts": {"action", "name", "--role", "--password-stdin"},
    "backup": {"--to"},
    "restore": {"file", "--overwrite"},
    "doctor": set(),
    "sync": {"--forget", "--close"},
    "runs": {"-n"},
    "train": {"--model-type", "--version", "--mlflow-tracking", "-p", "--output"},
    "retrain": {"--version", "-p"},
    "report": {"notebook"},
    "reference": {"notebooks"},
    "adopt": {"version", "new", "--tuned-from"},
    "predict": {"species_a", "species_b", "--policy", "--model"},
    "promote": {"version", "--to", "--why", "--dry-run", "--model-name"},
    "rollback": {"--why", "--dry-run", "--model-name"},
    "history": {"--model-name"},
    "gate": {"version", "--model-name"},
    "reproduce": {"run_id"},
    "dex": set(),
}
HEAVY = {"mlflow", "numpy", "pandas", "papermill", "xgboost"}


@pytest.mark.parametrize("name", WORDS)
def test_help_of_a_verb_names_its_options(verb: Callable[..., Result], name: str) -> None:
    package = nbtrack.cli if name in nbtrack.cli.VERBS else pokebattle.cli
    command = importlib.import_module(f"{package.__name__}.{name}").command
    assert {word for parameter in command.params for word in parameter.opts} == WORDS[name]
    for option in ("--help", "-h"):
        done = verb(name, option)
        assert done.exit_code == 0
        usage, purpose, *_ = done.stdout.split("\n\n")
        assert name in usage and " ".join(purpose.split()) == f"{pokebattle.cli.VERBS[name]}."
        for parameter in command.params:
            words = parameter.opts if parameter.param_type_name == "option" else [parameter.human_readable_name]
            assert parameter.help and all(word in done.stdout for word in words)


def test_help_of_a_group_lists_its_verbs_in_order() -> None:
    for package in (nbtrack.cli, pokebattle.cli):
        listed = CliRunner().invoke(package.main, ["--help"]).stdout.partition("Commands:\n")[2]
        rows = [line.split()[0] for line in listed.splitlines() if line[2:3].strip()]
        assert rows == list(package.VERBS)
        assert all(purpose in " ".join(listed.split()) for purpose in package.VERBS.values())
    assert set(pokebattle.cli.VERBS) == set(WORDS)


@pytest.mark.parametrize("words", ["nbtrack --help", "pokebattle --help", "nbtrack runs", "pokebattle runs"])
def test_what_is_not_needed_is_not_imported(words: str, tmp_path: Path) -> None:
    name, word = words.split()
    code = (
        f"import atexit, sys; from {name}.cli import main; "
        f"atexit.register(lambda: print(*{HEAVY} & set(sys.modules), file=sys.stderr)); main([{word!r}])"
    )
    env = os.environ | {"POKEBATTLE_STATE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n") and done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("snyc", "No such command 'snyc'. Did you mean 'sync'?"),
        ("runs -n three", "Invalid value for '-n': 'three' is not a valid integer range."),
        ("runs 3", "Got unexpected extra argument (3)"),
        ("server", "Missing argument 'ACTION'."),
        (
            "server statu",
            "Invalid value for 'ACTION': 'statu' is not one of 'start', 'stop', 'status'. Did you mean 'status'?",
        ),
        ("sync --forgt x", "No such option '--forgt'. Did you mean '--forget'?"),
        ("train --model-type xgbost", "Invalid value for '--model-type': 'xgbost' is not 'xgboost'. Did you mean"),
        ("train -p max_depth", "Option '-p' requires 2 arguments."),
        (
            "promote 1 --to staging",
            "Invalid value for '--to': 'staging' is not one of 'Staging', 'Production'. Did you mean 'Staging'?",
        ),
        ("promote 1", "Missing option '--to'."),
        ("rollback", "Missing option '--why'."),
        (
            "predict venusaur blastoise --policy best",
            "Invalid value for '--policy': 'best' is not one of 'best_move', 'random_move'.",
        ),
    ],
)
def test_wrong_words_are_named_with_what_is_expected(verb: Callable[..., Result], words: str, expected: str) -> None:
    done = verb(*words.split())
    assert (done.exit_code, done.stdout) == (2, "") and f"Error: {expected}" in done.stderr


def test_where_accounts_are_off_none_are_applied(
    verb: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POKEBATTLE_ENV_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("MLFLOW_ENABLE_AUTH", "false")
    done = verb("accounts", "apply")
    assert done.exit_code == 0 and "no accounts to apply" in done.stdout


def test_without_a_verb_the_help_is_shown_and_the_exit_code_is_2(verb: Callable[..., Result]) -> None:
    done = verb()
    assert done.exit_code == 2 and "Commands:" in done.stderr


class OtherError(Exception):
    """An error of the package of verbs below."""


ENDINGS: Mapping[str, int | Exception] = {
    "good": 0,
    "refused": 1,
    "broken": 2,
    "mine": OtherError("x: expected y, got z"),
    "theirs": nbtrack.cli.UserError("a: expected b, got c"),
    "system": FileNotFoundError(2, "No such file or directory", "there"),
    "fault": KeyError("nobody's"),
}


def group(monkeypatch: pytest.MonkeyPatch) -> VerbGroup:
    """Return a group whose verbs end as `ENDINGS` says."""
    for name, ending in ENDINGS.items():
        monkeypatch.setitem(sys.modules, f"verbs.{name}", module := ModuleType(f"verbs.{name}"))
        module.command = click.Command(name, callback=lambda ending=ending: end(ending))
    return VerbGroup("any", {"verbs": dict.fromkeys(ENDINGS, "Do it")}, "Anything.", (OtherError,))


def end(ending: int | Exception) -> int:
    if isinstance(ending, Exception):
        raise ending
    return ending


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("good", 0, ""),
        ("refused", 1, ""),
        ("broken", 2, ""),
        ("mine", 1, "Error: x: expected y, got z\n"),
        ("theirs", 1, "Error: a: expected b, got c\n"),
        ("system", 1, "Error: [Errno 2] No such file or directory: 'there'\n"),
    ],
)
def test_a_verb_ends_with_its_code_or_with_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, code: int, said: str
) -> None:
    done = CliRunner(catch_exceptions=False).invoke(group(monkeypatch), [name])
    assert (done.exit_code, done.stderr, done.stdout) == (code, said, "")


def test_a_fault_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError, match="nobody's"):
        CliRunner(catch_exceptions=False).invoke(group(monkeypatch), ["fault"])


@pytest.mark.parametrize("words", [["runs"], ["runs", "--help"]])
def test_a_reader_that_goes_away_is_no_error(words: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"POKEBATTLE_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "nbtrack", *words]
    done = subprocess.run(command, env=env, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
