"""The Compose file, the images' files and their lock, read by the tools that would run them."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from nbtrack.team import settings as s

DOCKERFILES = ("Dockerfile.jupyter", "docker/Dockerfile.mlflow")


@pytest.fixture(scope="module")
def env_file(tmp_path_factory, root):
    file = tmp_path_factory.mktemp("env") / ".env"
    s.write_env(file, root / ".env.example")
    return file


@pytest.fixture(scope="module")
def read(root, require, env_file):
    """The Compose file as Compose itself reads it, profiles included."""
    require("docker-compose")  # a wrapper that exits with 0 whatever happens; the program is in its package
    program = Path(importlib.util.find_spec("compose").origin).with_name("docker-compose")

    def config(*options, env_file=env_file):
        command = [str(program), "--env-file", str(env_file), "--profile", "*", "config", *options]
        return subprocess.run(command, cwd=root, env={}, capture_output=True, text=True, timeout=60)

    return config


@pytest.fixture(scope="module")
def services(read):
    done = read("--format", "json")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_reads_the_file_and_it_follows_the_schema(root, require, services):
    assert set(services) == {"db", "mlflow", "accounts", "jupyter", "backup"}
    command = [require("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_without_secrets_compose_refuses_and_names_the_command(read, root):
    done = read(env_file=root / ".env.example")
    assert done.returncode != 0 and "run `make env`" in done.stderr


@pytest.mark.parametrize("file", DOCKERFILES)
def test_hadolint_finds_nothing(root, require, file):
    done = subprocess.run([require("hadolint"), file], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ports_are_bound_to_this_machine(services):
    ports = {name: one.get("ports", []) for name, one in services.items()}
    assert {(name, port["host_ip"], port["published"]) for name, listed in ports.items() for port in listed} == {
        ("mlflow", "127.0.0.1", "5000"),
        ("jupyter", "127.0.0.1", "8888"),
    }


def test_nothing_runs_as_root_and_images_are_pinned(root, services):
    users = {name: one.get("user") for name, one in services.items()}
    built = {services[name]["build"]["dockerfile"] for name in services if "build" in services[name]}
    assert built == set(DOCKERFILES)
    for file in DOCKERFILES:
        text = (root / file).read_text()
        assert re.findall(r"(?m)^FROM (\S+)", text) == ["python:3.11.14-slim-bookworm"]
        assert re.findall(r"(?m)^USER (\S+)", text)[-1] == "1000:1000"
        assert "--require-hashes" in text
    assert (users["db"], users["jupyter"]) == ("postgres", "1000:1000")
    for one in services.values():
        assert re.search(r":\d+\.\d+", one["image"])
        assert one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"]


def test_the_order_of_starting_is_by_health(services):
    needs = {
        name: {on: how["condition"] for on, how in one.get("depends_on", {}).items()} for name, one in services.items()
    }
    healthy, done = "service_healthy", "service_completed_successfully"
    assert needs == {
        "db": {},
        "mlflow": {"db": healthy},
        "accounts": {"mlflow": healthy},
        "backup": {"db": healthy},
        "jupyter": {"mlflow": healthy, "accounts": done},
    }
    for name in ("db", "mlflow", "jupyter"):
        assert services[name]["healthcheck"]["test"]
    assert "/health" in services["mlflow"]["healthcheck"]["test"][-1]


def test_what_must_stay_is_in_volumes(services):
    kept = {
        name: {mount["target"]: mount["source"] for mount in one.get("volumes", [])} for name, one in services.items()
    }
    assert kept["db"] == {"/var/lib/postgresql": "db"}
    assert kept["mlflow"] == kept["backup"] == {"/mlflow": "mlflow"}
    assert kept["jupyter"]["/state"] == "state" and kept["jupyter"]["/work/.env"] == "/dev/null"


def test_secrets_come_from_the_file_and_reach_only_who_needs_them(root, services, env_file):
    secrets = {name: s.read_env(env_file)[name] for name in s.SECRETS}
    text = (root / "docker-compose.yml").read_text()
    assert not any(re.search(rf"(?m)^\s*{name}: (?!\$\{{)", text) for name in secrets)
    holders = {
        name: {service for service, one in services.items() if value in json.dumps(one)}
        for name, value in secrets.items()
    }
    assert holders == {
        "POSTGRES_PASSWORD": {"db", "mlflow", "backup"},
        "MLFLOW_ADMIN_PASSWORD": {"mlflow", "accounts"},
        "MLFLOW_FLASK_SERVER_SECRET_KEY": {"mlflow"},
        "MLFLOW_TEAM_PASSWORD": {"accounts", "jupyter"},
        "MLFLOW_PROMOTER_PASSWORD": {"accounts"},
        "JUPYTER_TOKEN": {"jupyter"},
    }


def test_the_image_gets_nothing_that_stays_at_home(root):
    ignored = (root / ".dockerignore").read_text().split()
    assert {".env", ".git", ".venv", ".pokebattle", "backups", "build"} <= set(ignored)
    assert {".env", "backups/"} <= set((root / ".gitignore").read_text().split())


def test_settings_of_compose_are_the_examples(root):
    """Every setting that Compose asks for is in the example, and none is there in vain."""
    asked = set(re.findall(r"\$\{([A-Z_0-9]+)", (root / "docker-compose.yml").read_text()))
    listed = set(re.findall(r"(?m)^(?:# )?([A-Z_0-9]+)=", (root / ".env.example").read_text()))
    assert asked - listed == {"POSTGRES_HOST", "AWS_DEFAULT_REGION"}
    assert listed - asked == set()


def test_the_images_lock_has_the_versions_of_the_projects(root):
    def pins(file):
        return dict(re.findall(r"(?m)^([a-z0-9._-]+)(?:\[[a-z]+\])?==(\S+)", (root / file).read_text()))

    image, project = pins("docker/requirements.lock"), pins("requirements.lock")
    asked = re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z]+\])?", (root / "docker/requirements.in").read_text())
    assert set(asked) <= set(image) and len(image) > 50
    assert {name: version for name, version in image.items() if project.get(name) != version} == {}
    assert not {"xgboost", "xgboost-cpu", "jupyterlab", "numba"} & set(image)


def test_the_service_accounts_makes_what_make_shared_makes(services):
    assert services["accounts"]["entrypoint"] == ["python", "-m", "pokebattle", "accounts"]
    assert services["accounts"]["command"] == ["apply"]
