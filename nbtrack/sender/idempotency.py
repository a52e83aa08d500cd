"""Find out from the server whether a request was already carried out, before it is sent again.

A missing response does not show whether the request was carried out. Most of MLflow's writes may be sent twice without
harm; others leave a trace on the server by which they are recognised; a request that does neither is not repeated.
Standard library only.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nbtrack.mlflow_rest import MlflowRest, ServerError
from nbtrack.tags import RUN_NAME

UNCLEAR = "UNCLEAR"  # error code of a request that is not sent again, as it may have been carried out
MARGIN = 1500  # ms of tolerance when clocks are compared, as the server's date has whole seconds
HARMLESS = re.compile(
    r"runs/(log-metric|log-parameter|log-batch|log-inputs|outputs|log-model|set-tag|delete-tag|update|delete|restore)"
    r"|experiments/(set-experiment-tag|delete-experiment-tag)"
    r"|logged-models/[^/]+(/tags(/.*)?)?"
    r"|(registered-models|model-versions)/(set-tag|delete-tag|update)|registered-models/alias"
)

Answer = dict[str, Any]
Seen = Answer | None


def carried_out(rest: MlflowRest, method: str, name: str, body: Mapping[str, Any], asked: int) -> Seen:
    """Return the response to a request that creates nothing, if the server shows that it was already carried out.

    Parameters
    ----------
    rest : MlflowRest
    method, name : str
        The request, with its path below ``/api/2.0/mlflow/``.
    body : mapping
        Its JSON body.
    asked : int
        Earliest time at which it may have been carried out, in ms of this machine's clock.

    Returns
    -------
    dict or None
        None if it may be sent again.

    Raises
    ------
    ServerError
        With code ``UNCLEAR``: the server does not show it, and sending again may do harm.
    OSError
        If the server does not answer.
    """
    at = asked + int(rest.ahead * 1000) - MARGIN
    if look := LOOKS.get(_kind(method, name)):
        return look(rest, dict(body) | {"model_id": name.rpartition("logged-models/")[2].split("/")[0]}, at)
    if is_harmless(method, name):
        return None
    raise _unclear(f"{name} may have been carried out; the server does not show whether it was")


def is_harmless(method: str, name: str) -> bool:
    """Return whether a request may be sent twice.

    Parameters
    ----------
    method, name : str
        The request, with its path below ``/api/2.0/mlflow/``.
    """
    reads = method == "GET" or "search" in name
    return reads or (_kind(method, name) not in LOOKS and bool(HARMLESS.fullmatch(name)))


def _kind(method: str, name: str) -> str:
    return f"{method} {re.sub('^logged-models/[^/]+', 'logged-models/ID', name)}"


def says_done(method: str, name: str, error: ServerError) -> bool:
    """Return whether an error means that what a request was to delete no longer exists.

    Parameters
    ----------
    method, name : str
        The request, with its path below ``/api/2.0/mlflow/``.
    error : ServerError
    """
    takes_away = method == "DELETE" or name in {"runs/delete-tag", "experiments/delete-experiment-tag"}
    return takes_away and error.missing


def _unclear(why: str) -> ServerError:
    return ServerError(409, UNCLEAR, why)


def _get(rest: MlflowRest, path: str, **query: Any) -> Seen:
    """Return the response to a GET request, None if the named entity does not exist."""
    try:
        return rest.call("GET", path, **query)
    except ServerError as error:
        if error.missing or (error.status == 400 and "not found" in error.message):
            return None
        raise


def _later(rest: MlflowRest, entity: Mapping[str, Any], at: int, what: str) -> None:
    """Raise if another client may have changed an entity after the request.

    An entity that was created after the request is not checked, as other clients could not know it.
    """
    created_at = int(entity.get("creation_timestamp") or entity.get("creation_time") or 0)
    if int(entity.get("last_updated_timestamp") or entity.get("last_update_time") or 0) >= at > created_at:
        raise _unclear(f"{what} was changed meanwhile, so the request is not repeated")


def _lifecycle(wanted: str) -> Callable[[MlflowRest, Mapping[str, Any], int], Seen]:
    def look(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
        answer = _get(rest, "experiments/get", experiment_id=body.get("experiment_id", ""))
        return {} if answer and answer["experiment"].get("lifecycle_stage") == wanted else None

    return look


def _experiment_renamed(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    experiment = (_get(rest, "experiments/get", experiment_id=body.get("experiment_id", "")) or {}).get(
        "experiment", {}
    )
    if experiment.get("name") == body.get("new_name"):
        return {}
    _later(rest, experiment, at, f"experiment {experiment.get('name')}")
    return None


def _model_renamed(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    old = _get(rest, "registered-models/get", name=body.get("name", ""))
    return None if old else _get(rest, "registered-models/get", name=body.get("new_name", ""))


def _model_deleted(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    answer = _get(rest, "registered-models/get", name=body.get("name", ""))
    return {} if answer is None or int(answer["registered_model"].get("creation_timestamp", 0)) >= at else None


def _version(rest: MlflowRest, body: Mapping[str, Any]) -> Seen:
    return _get(rest, "model-versions/get", name=body.get("name", ""), version=body.get("version", ""))


def _version_deleted(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    return None if _version(rest, body) else {}


def _version_moved(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    if answer := _version(rest, body):
        version = answer["model_version"]
        if version.get("current_stage", "").lower() == str(body.get("stage", "")).lower():
            return answer
        _later(rest, version, at, f"version {version['version']} of {version['name']}")
    return None


def _alias_set(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    answer = _get(rest, "registered-models/alias", name=body.get("name", ""), alias=body.get("alias", ""))
    return {} if answer and str(answer["model_version"]["version"]) == str(body.get("version")) else None


def _alias_deleted(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    answer = _get(rest, "registered-models/alias", name=body.get("name", ""), alias=body.get("alias", ""))
    return None if answer else {}


def _logged_model(rest: MlflowRest, body: Mapping[str, Any]) -> Seen:
    return _get(rest, f"logged-models/{body['model_id']}")


def _logged_model_deleted(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    return None if _logged_model(rest, body) else {}


def _logged_model_params(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Seen:
    answer = _logged_model(rest, body)
    logged = _pairs((answer or {}).get("model", {}).get("data", {}).get("params"))
    return {} if answer and _pairs(body.get("params")).items() <= logged.items() else None


LOOKS: dict[str, Callable[[MlflowRest, Mapping[str, Any], int], Seen]] = {
    "POST experiments/delete": _lifecycle("deleted"),
    "POST experiments/restore": _lifecycle("active"),
    "POST experiments/update": _experiment_renamed,
    "POST registered-models/rename": _model_renamed,
    "DELETE registered-models/delete": _model_deleted,
    "DELETE model-versions/delete": _version_deleted,
    "POST model-versions/transition-stage": _version_moved,
    "POST registered-models/alias": _alias_set,
    "DELETE registered-models/alias": _alias_deleted,
    "DELETE logged-models/ID": _logged_model_deleted,
    "POST logged-models/ID/params": _logged_model_params,
}


# -- what was created without a local id -------------------------------------------------------------


def created(rest: MlflowRest, creates: str, body: Mapping[str, Any], asked: int) -> Iterator[Answer]:
    """Yield, as responses to the request, what it may have created: equal in all requested fields, and not yet changed.

    No client has received the id of what the request created, so an entity with logged values was created by another.

    Parameters
    ----------
    rest : MlflowRest
    creates : {"run", "model", "version", "registered"}
        What the request creates; nothing is yielded for other values.
    body : mapping
        The request's JSON body.
    asked : int
        Earliest time at which it may have been carried out, in ms of this machine's clock.

    Raises
    ------
    OSError, ServerError
        As `MlflowRest.call`.
    """
    at = asked + int(rest.ahead * 1000) - MARGIN
    if creates == "run":
        yield from ({"run": run} for run in _runs(rest, body))
    elif creates == "model":
        yield from ({"model": model} for model in _models(rest, body, at))
    elif creates == "version":
        yield from ({"model_version": version} for version in _versions(rest, body, at))
    elif creates == "registered":
        answer = _get(rest, "registered-models/get", name=body["name"])
        if answer and int(answer["registered_model"].get("creation_timestamp", 0)) >= at:
            yield answer


def _pairs(tags: Any) -> dict[str, str]:
    return {str(tag["key"]): str(tag.get("value", "")) for tag in tags or []}


def _same(entity: Mapping[str, Any], body: Mapping[str, Any], *names: str) -> bool:
    return all(str(entity.get(name) or "") == str(body[name]) for name in names if body.get(name))


def _runs(rest: MlflowRest, body: Mapping[str, Any]) -> Iterator[Answer]:
    if not (begun := body.get("start_time")):
        return
    query = {"experiment_ids": [body["experiment_id"]], "filter": f"attributes.start_time = {begun}"}
    for run in rest.pages("POST", "runs/search", "runs", **query):
        info, data = run["info"], run.get("data", {})
        tags = {RUN_NAME: info.get("run_name", "")} | _pairs(body.get("tags"))
        untouched = info["status"] == "RUNNING" and not data.get("metrics") and not data.get("params")
        if untouched and _same(info, body, "run_name", "user_id") and _pairs(data.get("tags")) == tags:
            yield run


def _models(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Iterator[Answer]:
    query = {"experiment_ids": [body["experiment_id"]], "filter": f"creation_timestamp >= {at}", "max_results": 100}
    for model in rest.pages("POST", "logged-models/search", "models", **query):
        info, params = model["info"], _pairs(model.get("data", {}).get("params"))
        alike = _same(info, body, "name", "source_run_id", "model_type") and params == _pairs(body.get("params"))
        if (
            alike
            and info.get("status") == "LOGGED_MODEL_PENDING"
            and _pairs(info.get("tags")) == _pairs(body.get("tags"))
        ):
            yield model


def _versions(rest: MlflowRest, body: Mapping[str, Any], at: int) -> Iterator[Answer]:
    for version in newest_versions(rest, body["name"]):
        alike = _same(version, body, "source", "run_id", "model_id", "description")
        untouched = version.get("current_stage") in {None, "", "None"} and not version.get("aliases")
        recent = int(version.get("creation_timestamp", 0)) >= at
        if recent and alike and untouched and _pairs(version.get("tags")) == _pairs(body.get("tags")):
            yield version


def newest_versions(rest: MlflowRest, name: str) -> list[Answer]:
    """Return the latest versions of a registered model, at most 1,000, newest first.

    Parameters
    ----------
    rest : MlflowRest
    name : str
        The registered model.

    Raises
    ------
    OSError, ServerError
        As `MlflowRest.call`.
    """
    quote = '"' if "'" in name else "'"
    answer = rest.call(
        "GET",
        "model-versions/search",
        filter=f"name={quote}{name}{quote}",
        max_results=1000,
        order_by="version_number DESC",
    )
    return list(answer.get("model_versions", []))
