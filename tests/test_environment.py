"""environment.yml, pyproject.toml and requirements.lock name the same direct dependencies in the same versions.

The group `docs` has a lock and an environment of its own: see test_docs.py.
"""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def declared(root):
    """Requirements of pyproject.toml, the groups lab and dev included."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    groups = [lines for name, lines in project["dependency-groups"].items() if name != "docs"]
    parts = [project["project"]["dependencies"], *groups]
    return {Requirement(line) for part in parts for line in part}


@pytest.fixture(scope="module")
def conda(root):
    return yaml.safe_load((root / "environment.yml").read_text())


@pytest.fixture(scope="module")
def lock(root):
    """The pin (with its marker) and the hashes of every package in requirements.lock."""
    text = (root / "requirements.lock").read_text()
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    entries = [line.split() for line in joined.splitlines() if line.strip()]
    return {
        Requirement(" ".join(word for word in entry if not word.startswith("--hash="))): [
            word for word in entry if word.startswith("--hash=")
        ]
        for entry in entries
    }


def test_conda_and_project_agree_both_ways(declared, conda):
    pip = next(item["pip"] for item in conda["dependencies"] if isinstance(item, dict))
    assert pip[0] == "--editable ."
    named = {Requirement(line) for line in pip[1:]}
    assert sorted(map(str, declared - named)) == []
    assert sorted(map(str, named - declared)) == []
    assert len(named) == len(pip) - 1


def accepted(file):
    """The minor versions of Python 3 that a project accepts."""
    python = tomllib.loads(file.read_text())["project"]["requires-python"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", python).groups()
    return range(int(low), int(high))


def test_conda_and_make_take_the_pythons_of_the_project(root, conda):
    versions = accepted(root / "pyproject.toml")
    python = next(item for item in conda["dependencies"] if str(item).startswith("python="))
    assert python == f"python=3.{versions[0]}"
    assert f"{' | '.join(f'3.{minor}' for minor in versions)})" in (root / ".ci" / "python").read_text()
    assert accepted(root / "nbtrack" / "pyproject.toml") == versions


def test_an_old_python_is_refused_with_what_to_do(root, tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    done = subprocess.run(["bash", root / ".ci" / "python", old], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: Python 3.11, 3.12 or 3.13 is needed ({old}: 3.9)." in done.stderr and "apt install" in done.stderr


def test_every_line_for_conda_has_its_reason(root):
    lines = (root / "environment.yml").read_text().splitlines()
    items = [line for line in lines if line.lstrip().startswith("- ") and line.strip() != "- pip:"]
    assert len(items) > 30
    assert [line for line in items if not re.search(r"\S  # \S.{4,}", line)] == []


def test_every_direct_dependency_is_pinned_and_locked(declared, lock):
    pins = {(pin.name, str(pin.specifier)) for pin in lock}
    assert [str(line) for line in declared if not re.fullmatch(r"==[^*]+", str(line.specifier))] == []
    assert [str(line) for line in declared if (line.name, str(line.specifier)) not in pins] == []


def test_lock_is_pinned_and_hashed(lock):
    assert len(lock) > 100
    assert [str(pin) for pin in lock if not re.fullmatch(r"==[^*,]+", str(pin.specifier))] == []
    assert [str(pin) for pin, hashes in lock.items() if not hashes] == []
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for hashes in lock.values() for one in hashes)


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_lock_serves_linux_and_macos(lock, python):
    for platform in ("linux", "darwin"):
        machine = {
            "sys_platform": platform,
            "platform_system": platform.title(),
            "os_name": "posix",
            "python_version": python,
            "python_full_version": f"{python}.1",
        }
        names = [pin.name for pin in lock if pin.marker is None or pin.marker.evaluate(machine)]
        assert len(names) == len(set(names))
        assert ("xgboost-cpu" in names, "xgboost" in names) == (platform == "linux", platform == "darwin")


def test_lock_names_no_host(root):
    text = (root / "requirements.lock").read_text()
    assert re.findall(r"\S*(?:://|--(?:extra-)?index-url|--find-links|--trusted-host| @ )\S*", text) == []


def test_license_and_changelog_belong_to_this_version(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT" and (root / "LICENSE").read_text().startswith("MIT License")
    assert f"## [{project['version']}]" in (root / "CHANGELOG.md").read_text()


def test_a_missing_program_fails_under_ci_and_skips_elsewhere(require, monkeypatch):
    assert require("pytest")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require("no-such-program")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program")
