"""The trials of a search as runs: children of the notebook's run, found by study and number.

The search's own storage is authoritative; runs are created from it, and created again if they are missing. Nothing
here depends on how a search works. Standard library only.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nbtrack.local_ids import local_ids
from nbtrack.mlflow_rest import MlflowRest, pairs, tags_of
from nbtrack.tags import LOCAL_ID, PARENT_RUN, SHARED_VIEW, STUDY, TRIAL, TRIAL_STATE, USER

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
TIMEOUT = 10.0  # seconds that a request to the server may take
SHOWN = 40  # number of best runs shown, and of other runs, if there are more
ML = "workflowType=machine_learning"  # keeps MLflow's page out of its GenAI mode


def label(value: Any, choices: Sequence[Any] | None) -> str:
    """Return a parameter's value as text, numbered if MLflow's pages would shorten two choices to the same text.

    One page keeps the first ten characters, the other the first three and the last three.

    Parameters
    ----------
    value : object
    choices : sequence or None
        All values that a categorical parameter can have.

    Raises
    ------
    ValueError
        If choices have to be numbered and ``value`` is not one of them.
    """
    words = [str(choice) for choice in choices or []]
    if len({word[:10] for word in words}) == len({(word[:3], word[-3:]) for word in words}) == len(words):
        return str(value)
    return f"{words.index(str(value)) + 1} {value}"


def ids(study: str, number: int) -> tuple[str, str]:
    """Return the local ids of a trial's run and of its artifact folder.

    Parameters
    ----------
    study : str
    number : int
        The trial's number.
    """
    return local_ids(f"{study} {number}")


def tags(trial: Mapping[str, Any], parent: str, user: str) -> dict[str, str]:
    """Return the tags of a trial's run.

    Parameters
    ----------
    trial : mapping
    parent : str
        Run id of the notebook's run.
    user : str
    """
    return {
        PARENT_RUN: parent,
        USER: user,
        STUDY: trial["study"],
        TRIAL: str(trial["number"]),
        TRIAL_STATE: trial["state"],
        LOCAL_ID: ids(trial["study"], trial["number"])[0],
    }


def points(trial: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metric points of a trial: its metrics, and its learning curve by boosting round.

    Parameters
    ----------
    trial : mapping

    Returns
    -------
    list of dict
        ``key``, ``value`` ("NaN" if missing), ``timestamp`` (ms since the epoch) and ``step``.
    """
    whole = [(name, value, 0) for name, value in trial["metrics"].items()]
    whole += [(trial["curve"], value, step) for step, value in trial["steps"] or [(0, None)]]
    return [
        {"key": key, "value": "NaN" if value is None else value, "timestamp": trial["ended"], "step": step}
        for key, value, step in whole
    ]


def deliver(rest: MlflowRest, trial: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
    """Create the run of a trial as a child of the run ``parent``, without a journal.

    Parameters
    ----------
    rest : MlflowRest
    trial : mapping
    parent : mapping
        The notebook's run, as the server returns it.

    Raises
    ------
    ServerError, OSError
        As `MlflowRest.call`.
    """
    info = parent["info"]
    named = pairs(tags(trial, info["run_id"], info.get("user_id", "")))
    made = rest.call(
        "POST",
        "runs/create",
        experiment_id=info["experiment_id"],
        run_name=trial["name"],
        start_time=trial["began"],
        tags=named,
    )
    run_id = made["run"]["info"]["run_id"]
    rest.log_batch(run_id, points(trial), trial["params"])
    rest.call("POST", "runs/update", run_id=run_id, status=STATUS[trial["state"]], end_time=trial["ended"])


def of_study(rest: MlflowRest, study: str) -> dict[int, list[dict[str, Any]]]:
    """Return the runs of a study's trials by number; a list has several runs if a trial was delivered twice.

    Parameters
    ----------
    rest : MlflowRest
    study : str

    Raises
    ------
    ServerError, OSError
        As `MlflowRest.call`.
    """
    runs: dict[int, list[dict[str, Any]]] = {}
    for run in rest.search_runs(f"tags.`{STUDY}` = '{study}'"):
        if TRIAL in (run_tags := tags_of(run)):
            runs.setdefault(int(run_tags[TRIAL]), []).append(run)
    return runs


def metric_of(run: Mapping[str, Any], name: str) -> float:
    """Return a metric of a run; infinity if it is missing or NaN.

    Parameters
    ----------
    run : mapping
        As the server returns it.
    name : str
    """
    values = [metric["value"] for metric in run["data"].get("metrics", []) if metric["key"] == name]
    return float(values[0]) if values and str(values[0]) != "NaN" else float("inf")


def shown_first(runs: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """Return the ids of the runs to compare, best first.

    Parameters
    ----------
    runs : sequence of mapping
    metric : str
        Lower is better.

    Returns
    -------
    list of str
        All runs, or the best `SHOWN` ones and an even sample of `SHOWN` others.
    """
    order = [run["info"]["run_id"] for run in sorted(runs, key=lambda run: metric_of(run, metric))]
    best, others = order[:SHOWN], order[SHOWN:]
    if len(others) > SHOWN:
        others = [others[round(i * (len(others) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
    return best + others


def shared_view_tag(study: str, filter_string: str, params: Sequence[str], metrics: Sequence[str]) -> tuple[str, str]:
    """Return name and value of the experiment's tag from which MLflow's page loads a shared view.

    It shows one chart, parallel coordinates with these axes; the last metric colours the lines. MLflow does not
    document such links, so a test checks the page in a browser.

    Parameters
    ----------
    study : str
    filter_string : str
        Selects the runs, in MLflow's filter syntax.
    params, metrics : sequence of str
        The axes.
    """
    chart = {
        "uuid": "pokebattle-trials",
        "type": "PARALLEL",
        "metricSectionId": "pokebattle",
        "selectedParams": list(params),
        "selectedMetrics": list(metrics),
        "showAllRuns": True,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
    section = {
        "uuid": "pokebattle",
        "name": f"Trials of {study}",
        "display": True,
        "columns": 1,
        "cardHeight": 450,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }
    state = {
        "searchFilter": filter_string,
        "orderByKey": f"metrics.`{metrics[-1]}`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOWALL",
        "runListHidden": True,
        "hideEmptyCharts": True,
        "compareRunCharts": [chart],
        "compareRunSections": [section],
    }
    return f"{SHARED_VIEW}{view_key(study)}", json.dumps(state, separators=(",", ":"))


def view_key(study: str) -> str:
    """Return the key of a study's shared view.

    Parameters
    ----------
    study : str
    """
    return hashlib.sha256(study.encode()).hexdigest()[:24]


def view_link(uri: str, experiment_id: str, study: str) -> str:
    """Return the address that opens the shared view.

    Parameters
    ----------
    uri : str
        The server's address.
    experiment_id : str
    study : str
    """
    key = view_key(study)
    return f"{uri}/#/experiments/{experiment_id}/runs?viewStateShareKey={key}&compareRunsMode=CHART&{ML}"


def compare_link(uri: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """Return the address of MLflow's own page that compares runs.

    Parameters
    ----------
    uri : str
        The server's address.
    experiment_id : str
    run_ids : sequence of str
    """
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), [experiment_id]))
    return f"{uri}/#/compare-runs?runs={runs}&experiments={experiments}&{ML}"
