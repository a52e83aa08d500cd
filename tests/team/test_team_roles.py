"""What is allowed without a login, to a reader, the team, a promoter and the administrator, on a real server."""

import base64
import http.client
import json
import re
from urllib.parse import urlsplit

import pytest

from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.settings import PROMOTIONS
from nbtrack.team import accounts
from nbtrack.team.settings import Login
from pokebattle.registry.promotion_lock import hold_lock

MODEL = "battle_winner"
PREFIXES = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
LATER = "new-has-a-long-one"


def status_of(call, *args, **fields):
    try:
        call(*args, **fields)
        return 200
    except ServerError as error:
        return error.status


def ask(uri, method, path, body=None, **headers):
    """Send one request unchanged; return its status and what comes back."""
    parts = urlsplit(uri)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def people(team):
    """The server as each account sees it."""
    alice, bob = team.new_account("alice", "team"), team.new_account("bob", "team")
    reader = team.new_account("rita", "reader")
    logins = {"alice": alice, "bob": bob, "reader": reader, "team": "TEAM", "promoter": "PROMOTER", "admin": "ADMIN"}
    return {user: team.account(login) for user, login in logins.items()}


@pytest.fixture(scope="module")
def experiment(people):
    return people["alice"].call("POST", "experiments/create", name="of alice")["experiment_id"]


@pytest.fixture(scope="module")
def versions(people, experiment):
    """Versions of battle_winner, which alice registered first: she may manage the model by MLflow's own rules."""
    people["alice"].call("POST", "registered-models/create", name=MODEL)

    def create(user="alice", **fields):
        run = people[user].call("POST", "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
        fields = {"source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]} | fields
        return people[user].call("POST", "model-versions/create", name=MODEL, **fields)["model_version"]["version"]

    return create


# Without a login


def every_route():
    """Every address that MLflow's server has, with its methods."""
    from mlflow.server import app
    from mlflow.server.fastapi_app import create_fastapi_app

    native = [(route.path, route.methods) for route in create_fastapi_app(app).routes if hasattr(route, "methods")]
    flask = [(rule.rule, rule.methods) for rule in app.url_map.iter_rules()]
    users = ("GET", "users/list"), ("POST", "users/create"), ("PATCH", "users/update-password")
    more = [(path, ["GET"]) for path in ("/signup", "/metrics", "/docs", "/openapi.json")]
    more += [(f"{prefix}{path}", [method]) for prefix in PREFIXES for method, path in users]
    for path, methods in (*native, *flask, *more):
        for method in {*methods} - {"OPTIONS", "HEAD"}:
            yield method, re.sub(r"<[^>]+>|\{[^}]+\}", "1", path)


def test_without_a_password_no_address_reveals_anything(team, experiment):
    answered, n_asked = [], 0
    for method, path in sorted(set(every_route())):
        kind = {"Content-Type": "application/json"}
        status, body = ask(team.uri, method, path, b"{}" if method != "GET" else None, **kind)
        n_asked += 1
        if status not in {401, 404, 405} and not path.startswith("/static-files"):
            answered.append((method, path, status, body[:80]))
    assert n_asked > 300
    assert answered == [("GET", "/health", 200, b"OK")]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/version",
        "/graphql",
        "/get-artifact?path=x&run_uuid=1",
        "/model-versions/get-artifact?path=x&name=a",
        "/api/2.0/mlflow-artifacts/artifacts?path=",
        "/ajax-api/2.0/mlflow-artifacts/artifacts/1/x",
        "/api/2.0/mlflow/experiments/search?max_results=1",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
        "/api/3.0/mlflow/server-info",
        "/ajax-api/3.0/mlflow/server-info",
        "/ajax-api/3.0/mlflow/ui-telemetry",
        "//api/2.0/mlflow/experiments/search?max_results=1",
        "/health/../version",
    ],
)
@pytest.mark.parametrize("login", [None, Login("admin", "password1234"), Login("admin", ""), Login("nobody", "x" * 20)])
def test_nobody_and_wrong_passwords_see_nothing(team, path, login):
    word = base64.b64encode(f"{login.name}:{login.password}".encode()).decode() if login else ""
    status, body = ask(team.uri, "GET", path, **({"Authorization": f"Basic {word}"} if login else {}))
    assert status in {401, 308, 404}, body
    assert b"experiment_id" not in body and not re.search(rb"\d+\.\d+\.\d+", body)


# Roles


GUARDED = {
    "stage": ("POST", "model-versions/transition-stage", {"stage": "Production", "archive_existing_versions": True}),
    "alias": ("POST", "registered-models/alias", {"alias": "champion"}),
    "delete alias": ("DELETE", "registered-models/alias", {"alias": "champion"}),
    "tag stage": ("POST", "model-versions/set-tag", {"key": "stage", "value": "Production"}),
    "delete tag stage": ("DELETE", "model-versions/delete-tag", {"key": "stage"}),
    "delete version": ("DELETE", "model-versions/delete", {}),
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("what", GUARDED)
def test_only_promoters_and_the_administrator_promote(people, versions, prefix, what):
    method, path, fields = GUARDED[what]
    version = versions()
    asked = {"name": MODEL, "version": version} | fields
    if what == "delete alias":
        people["admin"].call("POST", "registered-models/alias", name=MODEL, version=version, alias="champion")
        asked.pop("version")
    if what == "delete tag stage":
        people["admin"].call("POST", "model-versions/set-tag", name=MODEL, version=version, key="stage", value="None")
    for user in ("reader", "team", "bob", "alice"):  # alice registered the model
        before = people["admin"].call("GET", "model-versions/get", name=MODEL, version=version)
        assert status_of(people[user].call, method, prefix + path, **asked) == 403, user
        assert people["admin"].call("GET", "model-versions/get", name=MODEL, version=version) == before
    assert status_of(people["promoter"].call, method, prefix + path, **asked) == 200
    if what != "delete version":
        assert status_of(people["admin"].call, method, prefix + path, **asked) in {200, 404}


def test_the_refusal_says_which_role_is_needed(people, versions):
    with pytest.raises(ServerError, match=r"alice may not promote.*role promoter") as refused:
        people["alice"].call("POST", "registered-models/alias", name=MODEL, version=versions(), alias="champion")
    assert refused.value.code == "PERMISSION_DENIED"


def test_the_team_registers_versions_of_a_model_that_another_registered(people, versions):
    assert versions("bob") and versions("team") and versions("promoter")
    assert status_of(versions, "reader") == 403
    version = versions("bob", tags=[{"key": "version", "value": "v3"}])
    bob, one = people["bob"].call, {"name": MODEL, "version": version}
    assert status_of(bob, "POST", "model-versions/set-tag", key="seen", value="y", **one) == 200
    assert status_of(bob, "PATCH", "model-versions/update", description="d", **one) == 200


@pytest.mark.parametrize("key", ["gates", "stage", "stage.by", "pokebattle.pending", "history.2026-11-26T12:00:00Z"])
def test_a_version_is_not_born_promoted(people, versions, key):
    assert status_of(versions, "bob", tags=[{"key": key, "value": "Production"}]) == 403
    assert versions("promoter", tags=[{"key": key, "value": "None"}])


def test_who_registered_a_model_neither_renames_nor_deletes_it_nor_makes_a_prompt_of_it(people, versions):
    versions()
    alice, tag = people["alice"].call, "registered-models/set-tag"
    assert status_of(alice, "POST", "registered-models/rename", name=MODEL, new_name="mine") == 403
    assert status_of(alice, "DELETE", "registered-models/delete", name=MODEL) == 403
    assert status_of(alice, "POST", tag, name=MODEL, key="mlflow.prompt.is_prompt", value="true") == 403
    assert status_of(alice, "POST", tag, name=MODEL, key="topic", value="battles") == 200


def test_nobody_gives_himself_the_right_to_promote(people, versions):
    alice, admin = people["alice"].call, people["admin"].call
    roles = {one["name"]: one["id"] for one in admin("GET", f"{accounts.API}roles/list")["roles"]}
    right = {"resource_type": "registered_model_version", "permission": "MANAGE"}
    for prefix in (accounts.API, accounts.API.replace("/api/", "/ajax-api/")):
        for pattern in ("*", MODEL):
            asked = {"username": "alice", "resource_id": pattern} | right
            assert status_of(alice, "POST", f"{prefix}users/permissions/grant", **asked) in {400, 403}
        asked = {"role_id": roles["team"], "resource_pattern": "*"} | right
        assert status_of(alice, "POST", f"{prefix}roles/permissions/add", **asked) == 403
        asked = {"username": "alice", "role_id": roles["promoter"]}
        assert status_of(alice, "POST", f"{prefix}roles/assign", **asked) == 403
    assert status_of(alice, "PATCH", "users/update-admin", username="alice", is_admin=True) == 403
    assert status_of(alice, "POST", "users/create", username="eve", password="x" * 20) == 403
    assert status_of(alice, "POST", "registered-models/alias", name=MODEL, version=versions(), alias="a") == 403


def test_two_accounts_write_one_experiment(people, experiment):
    run = people["alice"].call("POST", "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    other = people["bob"].call("POST", "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    point = {"key": "m", "value": 1.0, "timestamp": 1, "step": 0}
    for user, one in (("bob", run), ("alice", other)):
        people[user].log_batch(one["run_id"], [point], {"p": user}, {"t": user})
        people[user].upload(one["artifact_uri"], f"{user}.txt", lambda user=user: [user.encode()])
        files = people[user].call("GET", "artifacts/list", run_id=one["run_id"])["files"]
        assert [file["path"] for file in files] == [f"{user}.txt"]
    assert status_of(people["reader"].log_batch, run["run_id"], params={"q": "1"}) == 403
    assert status_of(people["reader"].upload, run["artifact_uri"], "r.txt", lambda: [b"r"]) == 403
    assert people["reader"].call("GET", "runs/get", run_id=run["run_id"])["run"]["data"]["params"]
    assert status_of(people["bob"].call, "POST", "runs/delete", run_id=run["run_id"]) == 403


def test_only_the_team_makes_experiments_and_models(people):
    for user, status in (("reader", 403), ("bob", 200), ("promoter", 200)):
        call = people[user].call
        assert status_of(call, "POST", "experiments/create", name=f"by {user}") == status
        assert status_of(call, "POST", "registered-models/create", name=f"model_by_{user}") == status
    with pytest.raises(ServerError, match=r"rita may not write here.*role team"):
        people["reader"].call("POST", "experiments/create", name="another")


def test_an_experiment_that_all_log_to_is_deleted_by_the_administrator_only(people):
    made = people["bob"].call("POST", "experiments/create", name="begun by bob")["experiment_id"]
    for user in ("reader", "alice", "promoter", "bob"):  # bob may manage it by MLflow's own rules
        assert status_of(people[user].call, "POST", "experiments/delete", experiment_id=made) == 403
    assert status_of(people["admin"].call, "POST", "experiments/delete", experiment_id=made) == 200


def test_a_promoters_claim_ends_with_the_move_and_nobody_else_has_one(people):
    for user in ("promoter", "admin", "promoter"):  # one after the other: none waits until the one before runs out
        with hold_lock(people[user], MODEL, user) as allowed:
            allowed()
    ticket = f"{PROMOTIONS}/{MODEL}/99"
    assert status_of(people["bob"].call, "POST", "experiments/create", name=ticket) == 403
    of_bob = people["bob"].call("POST", "experiments/create", name="bob's own")["experiment_id"]
    assert status_of(people["bob"].call, "POST", "experiments/update", experiment_id=of_bob, new_name=ticket) == 403
    assert (
        status_of(people["bob"].call, "POST", "experiments/update", experiment_id=of_bob, new_name="still his") == 200
    )
    made = people["promoter"].call("POST", "experiments/create", name=ticket)["experiment_id"]
    assert status_of(people["bob"].call, "POST", "experiments/delete", experiment_id=made) == 403


def test_an_account_without_a_role_sees_nothing(team, people, experiment):
    people["admin"].call("POST", "users/create", username="new", password=LATER)
    new = team.account(Login("new", LATER))
    assert new.call("POST", "experiments/search", max_results=10).get("experiments", []) == []
    assert status_of(new.call, "GET", "experiments/get", experiment_id=experiment) == 403


# What was registered stays


def test_files_of_a_registered_model_stay(people, experiment):
    alice, bob = people["alice"], people["bob"]
    logged = alice.call("POST", "logged-models", experiment_id=experiment, name="model")["model"]["info"]
    store, model = logged["artifact_uri"], logged["model_id"]
    alice.upload(store, "MLmodel", lambda: [b"before"])
    alice.call("PATCH", f"logged-models/{model}", model_id=model, status="LOGGED_MODEL_READY")
    bob.upload(store, "README.md", lambda: [b"nothing is registered yet"])
    alice.call("POST", "model-versions/create", name=MODEL, source=f"models:/{model}", model_id=model)
    root, proxy = urlsplit(store).path.strip("/"), "/api/2.0/mlflow-artifacts/artifacts"
    spellings = f"{root}//MLmodel", f"{root}/./MLmodel".replace("/models/", "/models/./"), f"{root}/%4dLmodel"
    for user in (alice, bob):
        assert status_of(user.upload, store, "MLmodel", lambda: [b"after"]) == 403
        assert status_of(user.upload, store, "more.pkl", lambda: [b"after"]) == 403
        for spelt in (*spellings, f"{root}/MLmodel".replace("/m-", "/%256d-")):
            assert status_of(user.request, "PUT", f"{proxy}/{spelt}", b"after") in {400, 403, 404}
        for path in (root, f"{root}/MLmodel", root.partition("/")[0]):
            assert status_of(user.request, "DELETE", f"{proxy}/{path}") == 403
    assert bob.request("GET", f"{proxy}/{root}/MLmodel") == b"before"


def test_files_of_a_model_that_was_registered_from_a_run_stay(people, experiment, versions):
    run = people["alice"].call("POST", "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    store = run["artifact_uri"]
    people["alice"].upload(store, "best/MLmodel", lambda: [b"before"])
    versions(source=f"runs:/{run['run_id']}/best", run_id=run["run_id"])
    assert status_of(people["bob"].upload, store, "best/MLmodel", lambda: [b"after"]) == 403
    body = "/ajax-api/2.0/mlflow/upload-artifact?run_uuid={}&path={}"
    assert status_of(people["bob"].request, "POST", body.format(run["run_id"], "best/MLmodel"), b"after") == 403
    people["bob"].upload(store, "bester/notes.txt", lambda: [b"another folder"])
    people["bob"].upload(store, "train.ipynb", lambda: [b"the notebook comes last"])
    proxy = f"/api/2.0/mlflow-artifacts/artifacts/{urlsplit(store).path.strip('/')}"
    assert people["bob"].request("GET", f"{proxy}/best/MLmodel") == b"before"


@pytest.mark.parametrize("place", ["/", "file:///mlflow", "s3://elsewhere", "mlflow-artifacts:/1"])
def test_nobody_but_the_administrator_says_where_artifacts_lie(people, place):
    for user in ("team", "promoter"):
        asked = {"name": f"{user} {place}", "artifact_location": place}
        assert status_of(people[user].call, "POST", "experiments/create", **asked) == 403
    asked = {"name": f"admin {place}", "artifact_location": "s3://bucket/elsewhere"}
    assert status_of(people["admin"].call, "POST", "experiments/create", **asked) == 200


# Hosts


@pytest.mark.parametrize(
    "host, answered",
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("localhost", True),
        ("mlflow:5000", True),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("mlflow:5001", False),
        ("mlflow", False),
        ("127.0.0.1.evil.example:{port}", False),
    ],
)
def test_a_foreign_host_header_is_refused_with_the_right_password_too(team, people, host, answered):
    port = urlsplit(team.uri).port
    for path in ("/", "/graphql", "/get-artifact", "/api/2.0/mlflow-artifacts/artifacts"):
        status, body = ask(team.uri, "GET", path, Host=host.format(port=port), **people["admin"]._login)
        assert (status == 403 and b"nvalid Host" in body) is not answered, (path, status, body[:200])


def test_a_foreign_page_writes_nothing(team, people):
    body = json.dumps({"name": "planted"}).encode()
    headers = {"Origin": "https://evil.example", "Content-Type": "application/json", **people["admin"]._login}
    assert ask(team.uri, "POST", "/ajax-api/2.0/mlflow/experiments/create", body, **headers)[0] == 403


# Commands


def test_accounts_come_change_and_go(team):
    said = team.type("accounts", "add", "carol")
    word = re.search(r"^password: (\S{20,})$", said, re.MULTILINE)[1]
    carol = team.account(Login("carol", word))
    assert carol.logs_in()
    assert re.search(r"(?m)^carol +team$", team.type("accounts"))
    assert team.type("accounts", "add", "carol", status=1).startswith(
        "Error: the account carol exists already; `accounts role`"
    )
    assert "expected --role with one of" in team.type("accounts", "role", "carol", status=1)
    team.type("accounts", "role", "carol", "--role", "promoter")
    assert re.search(r"(?m)^carol +promoter$", team.type("accounts", "list"))
    team.type("accounts", "password", "carol", "--password-stdin", stdin="another-long-password\n")
    assert not carol.logs_in() and team.account(Login("carol", "another-long-password")).logs_in()
    said = team.type("accounts", "password", "carol", "--password-stdin", stdin="short\n", status=1)
    assert "at least 12 characters" in said
    team.type("accounts", "remove", "carol")
    assert not team.account(Login("carol", "another-long-password")).logs_in()
    assert "carol" not in team.type("accounts")
    assert "roles and accounts are as .env says" in team.type("accounts", "apply")
    assert "not found" in team.type("accounts", "remove", "carol", status=1)
    assert "cannot be removed" in team.type("accounts", "remove", "admin", status=1)
    assert "expected the account's name" in team.type("accounts", "add", status=1)
    said = team.type("accounts", "add", "a:b", status=1)
    assert "without a colon, got 'a:b'" in said and "a:b" not in team.type("accounts")


def test_status_shows_each_part(team):
    said = team.type("shared", "status")
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["ok", "database"],
        ["ok", "server"],
        ["ok", "health"],
        ["ok", "accounts"],
    ]


def test_doctor_logs_in_with_mlflows_own_variables(team):
    login = team.login("TEAM")
    said = team.type("doctor", status=None, **team.tracked(login))
    assert re.search(rf"(?m)^ok +server +{team.uri} answers", said)
    for change in ({"MLFLOW_TRACKING_PASSWORD": LATER}, {"MLFLOW_TRACKING_USERNAME": "", "HOME": str(team.folder)}):
        said = team.type("doctor", status=1, **team.tracked(login) | change)
        assert re.search(r"(?m)^BAD +server .*401", said) and "set MLFLOW_TRACKING_USERNAME" in said


def test_a_notebook_is_tracked_as_who_is_logged_in(team, make_notebook, tmp_path):
    import nbformat

    notebook = tmp_path / "as_bob.ipynb"
    sources = ("import mlflow\nmlflow.log_metric('m', 1.0)", "mlflow.log_text('hello', 'note.txt')")
    nbformat.write(make_notebook(*sources), notebook)
    child = team.papermill(team.new_account("bob", "team"), notebook)
    assert child.wait(120) == 0, child.stdout.read()
    (run,) = team.runs("as_bob", 1)
    assert (run["info"]["status"], run["data"]["metrics"][0]["key"]) == ("FINISHED", "m")
    files = team.account("ADMIN").call("GET", "artifacts/list", run_id=run["info"]["run_id"])["files"]
    assert {"note.txt", "as_bob.ipynb"} <= {file["path"] for file in files}


def test_health_needs_no_password_and_no_credentials_leak(team):
    assert MlflowRest(team.uri).request("GET", "/health") == b"OK"
    for file in (team.state / "shared").iterdir():
        if file.is_file() and file.name != "lock":
            text = file.read_text("utf-8", errors="replace")
            if team.login("ADMIN").password in text or "psycopg2://" in text:
                assert file.stat().st_mode & 0o077 == 0, file
