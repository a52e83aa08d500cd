"""What `.env` may say, and what is refused before anything starts."""

import stat
import subprocess
import sys

import pytest

from nbtrack.team import serve
from nbtrack.team import settings as s

WORD, QUOTED = "p@ss/word:1?", "p%40ss%2Fword%3A1%3F"
GOOD = {"POSTGRES_USER": "u", "POSTGRES_PASSWORD": WORD, "POSTGRES_DB": "m"}


def test_make_env_fills_what_is_empty_and_leaves_what_is_there(tmp_path, root):
    file = tmp_path / ".env"
    assert s.write_env(file, root / ".env.example") == list(s.SECRETS)
    first = s.read_env(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len({first[name] for name in s.SECRETS}) == len(s.SECRETS)
    for kind in ("ADMIN", "TEAM", "PROMOTER"):
        s.login(first, kind)
    file.write_text(
        file.read_text()
        .replace(f"MLFLOW_TEAM_PASSWORD={first['MLFLOW_TEAM_PASSWORD']}", "")
        .replace(first["JUPYTER_TOKEN"], "")
        + "MINE=kept # a remark\n"
    )
    assert s.write_env(file, root / ".env.example") == ["MLFLOW_TEAM_PASSWORD", "JUPYTER_TOKEN"]
    second = s.read_env(file)
    assert second["MINE"] == "kept"
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"MLFLOW_TEAM_PASSWORD", "JUPYTER_TOKEN"}
    assert s.write_env(file, root / ".env.example") == []


def test_make_env_needs_no_packages(tmp_path, root):
    command = [sys.executable, "-S", "-m", "nbtrack.team.write_env"]
    env = {"POKEBATTLE_ENV_FILE": str(tmp_path / ".env")}
    for expected in (", ".join(s.SECRETS), "nothing to fill"):
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and expected in done.stdout, done.stderr
    assert set(s.SECRETS) <= set(s.read_env(tmp_path / ".env"))
    assert "-m nbtrack.team.write_env\n" in (root / "Makefile").read_text()
    nowhere = env | {"POKEBATTLE_ENV_FILE": str(tmp_path / "none" / ".env")}
    done = subprocess.run(command, cwd=root, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_the_example_names_every_secret_without_a_value(root):
    example = s.read_env(root / ".env.example")
    assert {name: example[name] for name in s.SECRETS} == dict.fromkeys(s.SECRETS, "")


def test_the_environment_goes_before_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("MLFLOW_PORT=5001\nexport POSTGRES_DB='mine'\n")
    monkeypatch.setenv("MLFLOW_PORT", "5002")
    monkeypatch.delenv("POSTGRES_DB", raising=False)
    loaded = s.load(tmp_path / ".env")
    assert (loaded["MLFLOW_PORT"], loaded["POSTGRES_DB"]) == ("5002", "mine")


def test_addresses_keep_every_character_of_a_password():
    assert s.database(GOOD) == f"postgresql+psycopg2://u:{QUOTED}@db:5432/m"
    uri = s.database(GOOD, "/a b")
    assert s.accounts_database(uri) == "postgresql+psycopg2://u:p%40ss%2Fword%3A1%3F@/m_auth?host=/a%20b"


@pytest.mark.parametrize(
    "verb, name, word, expected",
    [
        *(
            (verb, "MLFLOW_ADMIN_PASSWORD", word, expected)
            for verb in ("start", "serve")
            for word, expected in (
                ("", "expected a value, got none"),
                ("short", "at least 12 characters, got 5"),
                ("password1234", "easy to guess"),
                ("aaaaaaaaaaaaaaaa", "easy to guess"),
            )
        ),
        ("start", "MLFLOW_TEAM_PASSWORD", "ChangeMeChangeMe", "easy to guess"),
        ("start", "POSTGRES_PASSWORD", "postgres", "at least 12 characters, got 8"),
        ("serve", "POSTGRES_PASSWORD", "postgres", "at least 12 characters, got 8"),
    ],
)
def test_default_and_short_passwords_are_refused_before_anything_starts(idle, root, verb, name, word, expected):
    s.write_env(idle.env_file, root / ".env.example")
    values = s.read_env(idle.env_file) | {"MLFLOW_DEFAULT_ARTIFACT_ROOT": str(idle.folder), name: word}
    said = idle.type("shared", verb, status=1, **values)
    assert said.count("\n") == 1 and said.startswith(f"Error: {name}: ") and expected in said
    assert idle.database_pid() == idle.server_pid() == 0
    assert word == "" or word not in said


def test_wrong_settings_are_named(idle, root):
    s.write_env(idle.env_file, root / ".env.example")
    values = s.read_env(idle.env_file) | {"MLFLOW_DEFAULT_ARTIFACT_ROOT": "/x"}
    wrong = {
        "MLFLOW_ENABLE_AUTH": "maybe",
        "MLFLOW_WORKERS": "none",
        "MLFLOW_PORT": "-1",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "here",
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///x",
    }
    for name, value in wrong.items():
        changed = values | {name: value}
        with pytest.raises(s.SettingsError, match=f"^{name}: expected"):
            _ = s.with_accounts(changed), s.database(changed), serve.command(changed)


def test_an_account_whose_name_could_not_log_in_is_refused():
    word = "-".join(["long", "enough", "to", "be", "one"])
    settings = {"MLFLOW_TEAM_USERNAME": "team:a", "MLFLOW_TEAM_PASSWORD": word}
    with pytest.raises(s.SettingsError, match=r"^MLFLOW_TEAM_USERNAME: expected an account's name without a colon"):
        s.login(settings, "TEAM")


def test_the_public_name_joins_the_hosts_that_the_server_answers_to():
    hosts = s.allowed_hosts({"MLFLOW_PUBLIC_HOST": "mlflow.example.org, other:8443"}).split(",")
    assert {"mlflow:5000", "localhost:*", "127.0.0.1", "mlflow.example.org", "other:8443"} <= set(hosts)
