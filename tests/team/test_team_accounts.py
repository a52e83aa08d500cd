"""Accounts and roles without a server: what is refused before a request, and how the server's refusals are shown."""

import ast
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from nbtrack.errors import ServerError
from nbtrack.team.accounts import ROLES, AccountsClient
from nbtrack.team.settings import Login, SettingsError
from pokebattle import registry

CAROL = Login("carol", "carol-has-a-long-password")


class Recorded(AccountsClient):
    """A client whose requests are recorded and answered here; those that contain a word of ``refused`` fail."""

    def __init__(self, *refused: str) -> None:
        super().__init__("http://127.0.0.1:9", Login("admin", "admin-has-a-long-password"))
        self.refused, self.asked = refused, []

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        self.asked.append(f"{method} {path}")
        if any(word in path for word in self.refused):
            raise ServerError(500, "INTERNAL_ERROR", "the database is locked")
        roles = [{"name": name, "id": number, "workspace": "default"} for number, name in enumerate(ROLES)]
        held = path.startswith("/api/3.0/mlflow/users/roles/list")
        return json.dumps({"users": [], "roles": roles[:1] if held else roles, "role_permissions": []}).encode()


@pytest.mark.parametrize("call", [lambda one: one.give_role("carol", "boss"), lambda one: one.add(CAROL, "boss")])
def test_an_unknown_role_is_refused_before_anything_is_changed(call: Any) -> None:
    client = Recorded()
    with pytest.raises(SettingsError, match=r"^role: expected one of reader, team, promoter, got 'boss'$"):
        call(client)
    assert client.asked == []


@pytest.mark.parametrize("refused", ["roles/unassign", "roles/assign"])
def test_a_role_that_the_server_does_not_change_is_one_line(refused: str) -> None:
    with pytest.raises(SettingsError, match=r"^http://127.0.0.1:9: the database is locked$"):
        Recorded(refused).give_role("carol", "team")


@pytest.mark.parametrize("refused", ["permissions/list", "permissions/add"])
def test_permissions_that_the_server_does_not_change_are_one_line(refused: str) -> None:
    with pytest.raises(SettingsError, match=r"^http://127.0.0.1:9: the database is locked$"):
        Recorded(refused).update_roles()


def tags_of_the_registry() -> set[str]:
    """Return every tag that the registry's code sets on a version or removes from it, with an example's time."""
    tags: set[str] = set()
    for info in pkgutil.iter_modules(registry.__path__):
        module = importlib.import_module(f"{registry.__name__}.{info.name}")
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"tag", "untag"}
            ):
                known = vars(module) | {"event": {"when": "2026-11-30T12:00:00+00:00"}}
                name = ast.unparse(node.args[1])
                tags |= {eval(name, known | {"key": key}) for key in ("by", "when", "why")}
    return tags


def test_the_server_protects_every_tag_that_the_registry_sets() -> None:
    from nbtrack.team.app import PROTECTED_TAG

    tags = tags_of_the_registry()
    assert {"gates", "stage", "stage.by", "pokebattle.pending"} <= tags
    assert [tag for tag in sorted(tags) if not PROTECTED_TAG.fullmatch(tag)] == []
