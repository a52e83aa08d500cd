"""MLflow's server with its own accounts and additional rules; `mlflow server --app-name nbtrack` loads it.

MLflow's permissions do not distinguish between registering a version and promoting one: both need EDIT, and the
account that first registers a model may manage it. Here, everything that decides which version is in which stage needs
MANAGE of all model versions, which only an administrator can grant.

MLflow lets every account create experiments and models, and their creator delete them with what others logged there.
Here, creating needs EDIT of all experiments. Only the administrator deletes experiments; registered models and
versions, and the tickets of promotions (experiments whose names begin with `TICKETS`), are deleted by accounts that may
promote.

A client that does not log in gets no information. `/health` reads both databases.
"""

import os
import posixpath
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import sqlalchemy
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from flask import Flask, Response, g, request
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2, model_registry_pb2, service_pb2
from mlflow.server import app as flask_app
from mlflow.server import auth, handlers
from mlflow.server.asgi_utils import get_routed_asgi_path
from mlflow.server.auth.permissions import (
    RESOURCE_TYPE_EXPERIMENT,
    RESOURCE_TYPE_REGISTERED_MODEL_VERSION,
    GrantLoadKey,
)
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.responses import Response as Reply

from nbtrack.settings import PROMOTIONS as TICKETS
from nbtrack.team.settings import BOOT, BOOT_HEADER

# The tags that a promotion sets on a version: gates, stage, the pending move, the history of moves.
PROTECTED_TAG = re.compile(r"gates|stage(\.(by|when|why))?|pokebattle\.(pending|stage|promotion)|history\..*")
STORED = re.compile(r"/(?:models/(m-[0-9a-f]{32})|([0-9a-f]{32})/artifacts)/(.*)")
WRITES = {"PUT", "POST", "PATCH", "DELETE"}
PROBES = 4  # maximum number of simultaneous database checks in one process


@dataclass(frozen=True)
class Rule:
    """Which requests need more than MLflow's own permissions; the administrator may always send them.

    Attributes
    ----------
    concerns : callable
        Whether the rule applies to a request's message.
    refusal : str
        The error message, after the account's name.
    allows : callable
        Whether an account may send the request.
    """

    concerns: Callable[[Any], bool]
    refusal: str
    allows: Callable[[str], bool]


def _always(message: Any) -> bool:
    return True


def _protected_tag(message: Any) -> bool:
    return bool(PROTECTED_TAG.fullmatch(message.key))


def _protected_tags(message: Any) -> bool:
    return any(_protected_tag(tag) for tag in message.tags)


def _tag_of_mlflow(message: Any) -> bool:
    return str(message.key).startswith("mlflow.")  # for example the tag that turns a model into a prompt


def _own_location(message: Any) -> bool:
    return bool(message.artifact_location)


def _for_ticket(message: Any) -> bool:
    return _is_ticket(getattr(message, "name", "") or getattr(message, "new_name", ""))


def _of_no_ticket(message: Any) -> bool:
    return not _is_ticket(handlers._get_tracking_store().get_experiment(message.experiment_id).name)


def _is_ticket(experiment: str) -> bool:
    return experiment.startswith(f"{TICKETS}/")


def may_write(username: str) -> bool:
    """Return whether an account may write to every experiment, as the team's accounts may.

    Parameters
    ----------
    username : str
    """
    return _granted(username, RESOURCE_TYPE_EXPERIMENT, "can_update")


def may_promote(username: str) -> bool:
    """Return whether an account may change stages: it is an administrator's or manages all model versions.

    Parameters
    ----------
    username : str
    """
    return _is_admin(username) or _granted(username, RESOURCE_TYPE_REGISTERED_MODEL_VERSION, "can_manage")


def _nobody(username: str) -> bool:
    return False


def _is_admin(username: str) -> bool:
    return bool(auth.store.get_user(username).is_admin)


def _granted(username: str, kind: str, right: str) -> bool:
    """Return whether an account has a permission for all resources of a kind."""
    (granted,) = auth.resolve_permissions(username, DEFAULT_WORKSPACE_NAME, [GrantLoadKey(kind, "*")])
    return granted is not None and bool(getattr(granted, right))


def _promoters(concerns: Callable[[Any], bool], refusal: str) -> tuple[Rule]:
    return (Rule(concerns, refusal, may_promote),)


_PROMOTE = "may not promote: stages, aliases and their tags are for accounts with the role promoter"
_REGISTERED = "may not do this: only accounts with the role promoter may delete or rename registered models"
_SHARED = "may not do this: only the administrator may delete experiments"
_CREATE = "may not write here: this needs the role team"
_PLACE = "may not choose artifact locations: the server sets them"
RULES: dict[type, tuple[Rule, ...]] = {
    model_registry_pb2.TransitionModelVersionStage: _promoters(_always, _PROMOTE),
    model_registry_pb2.SetRegisteredModelAlias: _promoters(_always, _PROMOTE),
    model_registry_pb2.DeleteRegisteredModelAlias: _promoters(_always, _PROMOTE),
    model_registry_pb2.CreateModelVersion: _promoters(_protected_tags, _PROMOTE),
    model_registry_pb2.SetModelVersionTag: _promoters(_protected_tag, _PROMOTE),
    model_registry_pb2.DeleteModelVersionTag: _promoters(_protected_tag, _PROMOTE),
    model_registry_pb2.RenameRegisteredModel: _promoters(_always, _REGISTERED),
    model_registry_pb2.DeleteRegisteredModel: _promoters(_always, _REGISTERED),
    model_registry_pb2.DeleteModelVersion: _promoters(_always, _REGISTERED),
    model_registry_pb2.SetRegisteredModelTag: _promoters(_tag_of_mlflow, _REGISTERED),
    model_registry_pb2.DeleteRegisteredModelTag: _promoters(_tag_of_mlflow, _REGISTERED),
    model_registry_pb2.CreateRegisteredModel: (Rule(_always, _CREATE, may_write),),
    service_pb2.CreateExperiment: (
        Rule(_always, _CREATE, may_write),
        Rule(_own_location, _PLACE, _nobody),
        *_promoters(_for_ticket, _PROMOTE),
    ),
    service_pb2.UpdateExperiment: _promoters(_for_ticket, _PROMOTE),
    service_pb2.DeleteExperiment: (Rule(_of_no_ticket, _SHARED, _nobody), *_promoters(_always, _PROMOTE)),
}


def create_app(app: Flask = flask_app) -> Any:
    """Return MLflow's application with accounts and this module's rules; MLflow calls it in each worker.

    Parameters
    ----------
    app : Flask
        MLflow's own application.
    """
    served = auth.create_app(app)
    kinds = {
        (path, method): kind
        for path, kind, methods in handlers.get_endpoints(lambda kind: kind)
        if kind in RULES
        for method in methods
    }

    def refuse() -> Response | None:
        rule = request.url_rule
        kind = kinds.get((rule.rule, request.method)) if rule else None
        return _refuse(kind) if kind else None

    app.before_request(refuse)
    if isinstance(served, FastAPI):
        _guard(served)
    return served


@handlers.catch_mlflow_exception
def _refuse(kind: type) -> Response | None:
    """Answer 403 if MLflow's own permissions allow a request and one of this module's rules does not."""
    username, message = g.mlflow_authenticated_user, handlers._get_request_message(kind())
    for rule in RULES[kind]:
        if rule.concerns(message) and not (_is_admin(username) or rule.allows(username)):
            raise MlflowException(f"{username} {rule.refusal}", databricks_pb2.PERMISSION_DENIED)
    return None


def _guard(served: FastAPI) -> None:
    """Handle requests before MLflow does: health, server information without login, files of registered models."""
    probes = CapacityLimiter(PROBES)

    @served.middleware("http")
    async def look(asked: Request, answer: Callable[[Request], Awaitable[Reply]]) -> Reply:
        path = get_routed_asgi_path(asked)
        if path == "/health":
            problem = await to_thread.run_sync(database_problem, limiter=probes)
            named = {BOOT_HEADER: os.environ.get(BOOT, "")}
            return PlainTextResponse(problem or "OK", 503 if problem else 200, named)
        if path.endswith("/mlflow/server-info") and not await to_thread.run_sync(_user, asked):
            return PlainTextResponse("You are not authenticated.", 401, {"WWW-Authenticate": 'Basic realm="mlflow"'})
        target = _written(asked, path) if asked.method in WRITES else ""
        if target and (refused := await to_thread.run_sync(_refused_file, asked, target)):
            return PlainTextResponse(refused, 403)
        return await answer(asked)


def _user(asked: Request) -> Any:
    return auth._authenticate_fastapi_request(asked)


def _written(asked: Request, path: str) -> str:
    """Return the path of the artifact that a request writes or deletes; empty for other requests."""
    if path.endswith("/mlflow/upload-artifact"):
        path = f"/{asked.query_params.get('run_uuid')}/artifacts/{asked.query_params.get('path')}"
    elif "/mlflow-artifacts/" not in path:
        return ""
    while (plain := unquote(path)) != path:
        path = plain
    return f"{posixpath.normpath(path)}/"


def _refused_file(asked: Request, path: str) -> str:
    """Return why a file must not be written or deleted; registered models must remain as they were judged."""
    user = _user(asked)
    if user is None or may_promote(user.username):
        return ""
    if asked.method == "DELETE":
        return "only accounts with the role promoter may delete artifacts"
    match = STORED.search(path)
    if match is None:
        return ""
    owner, file = match[1] or match[2], match[3].removeprefix("artifacts/")
    for version in handlers._get_model_registry_store().search_model_versions(f"source_path LIKE '%{owner}%'", 1000):
        folder = version.source.partition(owner)[2].removeprefix("/artifacts").strip("/")
        if not folder or file.startswith(f"{folder}/"):
            return f"the files of {version.name} version {version.version} cannot be changed: the version is registered"
    return ""


def database_problem() -> str:
    """Read a table of each database; return which database does not answer, or an empty string."""
    looks = (("MLflow's", handlers._get_tracking_store, "experiments"), ("the accounts'", lambda: auth.store, "users"))
    for owner, store, table in looks:
        try:
            with store().ManagedSessionMaker() as session:
                session.execute(sqlalchemy.text(f"SELECT 1 FROM {table} LIMIT 1"))
        except (sqlalchemy.exc.SQLAlchemyError, MlflowException) as error:
            return f"{owner} database does not answer ({type(error).__name__})"
    return ""
