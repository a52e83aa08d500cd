"""Compares what the two executions of a sequence returned, raised and left behind.

Ids differ, so they are paired: two ids that occur at the same place for the first time become a pair, and must
occur together from then on. Times, names that MLflow makes up, and the name of the execution are levelled before. What
tracking does on purpose is taken out of the tracked side; the part *On purpose* names it.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow.utils import name_utils

ID = re.compile(r"\b(?:m-|d-|tr-)?[0-9a-f]{32}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b1[0-9]{7}\b")
PREDICATES = "|".join(sorted({word.lower() for word in name_utils._GENERATOR_PREDICATES}))
NOUNS = "|".join(sorted({word.lower() for word in name_utils._GENERATOR_NOUNS}))
MADE_UP = re.compile(rf"\b(?:{PREDICATES})-(?:{NOUNS})-[0-9]{{1,4}}\b")
MOMENT = re.compile(r"\b1[6-9][0-9]{11}\b")
ISO = re.compile(r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(?:\.[0-9]+)?(?:\+00:00|Z)?")
OTHER_TAG = re.compile(r"\b[pt]x[0-9a-f]+x(?=/)")  # the folder of another sequence, whose dataset a store has kept
TEMPORARY = re.compile(r"(?<=/)tmp[a-z0-9_]{8}(?=/)")  # folders of Python's tempfile
DAY = 86_400_000  # ms
DEFAULT = "0"  # id of the experiment that is there from the beginning
PARENT = "mlflow.parentRunId"
NO_DEFAULT = f"No Experiment with id={DEFAULT} exists"  # the notebook's experiment, in a store that lacks it


# -- On purpose --------------------------------------------------------------------------------------

OWN_KEYS = re.compile(r"(pokebattle\.|cell/|fit/|LinearRegression(_[0-9]+)?\.|xgboost(_[0-9]+)?\.)")
OWN_TAGS = {"mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit", "mlflow.runName", "mlflow.user"}
OWN_FILES = re.compile(
    r"Default.*\.ipynb|cells\.json|fits\.json|packages\.txt|parameters\.json|code\.patch"
    r"|traceback\.txt|figures/.*"
)
OWN_FIELDS = {"run_name", "name", "start_time", "user_id", "source_name", "source_type"}
OWN_ENDS = {"FINISHED", "FAILED"}  # of a run that a cell left open
OWN_ANSWER = "mlflow.get_parent_run"  # gives the notebook's run, where plain MLflow has none
ON_PURPOSE = {  # and the row of the table in docs/mlflow-in-notebooks.md, by its first words, that says so
    "OWN_KEYS": "The notebook's run has the metrics",
    "OWN_TAGS": "The notebook's run has its own name",
    "OWN_FILES": "The notebook's run has its own name",
    "OWN_FIELDS": "The notebook's run has its own name",
    "OWN_ENDS": "Runs that fluent calls left open",
    "OWN_ANSWER": "`mlflow.get_parent_run` of such a run",
    "PARENT": "A run that a cell starts without a parent",
    "DEFAULT": "If no experiment is chosen",
    "NO_DEFAULT": "A call that uses the active run's experiment",
    "_Own": "The first item that is logged",
    "_is_denied": "A write that the server denies",
    "_repeated": "If a server answers 500 to one request",
}


@dataclass(frozen=True)
class Side:
    """What one execution gave.

    Attributes
    ----------
    records : list of dict
        What `recorder` wrote down, in its order.
    entities : dict
        What `entities` read.
    tag : str
        What distinguishes it from other executions.
    words : dict
        Texts that replace others: paths, the notebook's name.
    own : str
        The execution's own run, empty where there is none.
    experiment : str
        The notebook's experiment, which replaces Default.
    ends : dict
        How cells and kernel ended.
    """

    records: list[dict[str, Any]]
    entities: dict[str, Any]
    tag: str
    words: dict[str, str]
    own: str = ""
    experiment: str = ""
    ends: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One place where the two differ.

    Attributes
    ----------
    where : str
        The call or the kind of entity, and the path within.
    plain, tracked : object
    step : int
        Number of the call, 0 for what was left behind.
    """

    where: str
    plain: Any
    tracked: Any
    step: int = 0

    @property
    def kind(self) -> str:
        """What this difference has in common with others of the same cause."""
        return re.sub(r"\[[^]]*\]", "[]", self.where)

    def __str__(self) -> str:
        return f"{self.where}\n    plain:   {_short(self.plain)}\n    tracked: {_short(self.tracked)}"


@dataclass
class Verdict:
    """The differences of a sequence, and how much was compared."""

    differences: list[Difference] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


MISSING = "<nothing>"
NEW = "<a model not paired>"
SWAPPED = {"t1": "t2", "t2": "t1"}


class _Own:
    """Marks a value of the tracked side that is there on purpose."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Pairs:
    """Ids of the plain side and the ids of the tracked side that are the same things."""

    def __init__(self) -> None:
        self.tracked: dict[str, str] = {}
        self.plain: dict[str, str] = {}

    def same(self, plain: str, tracked: str) -> bool:
        """Return whether two ids are of the same thing, and pair them if neither is paired."""
        if plain not in self.tracked and tracked not in self.plain:
            self.tracked[plain], self.plain[tracked] = tracked, plain
        return self.tracked.get(plain) == tracked


def compare(plain: Side, tracked: Side, calls: dict[int, str]) -> Verdict:
    """Compare all that two executions of a sequence gave; ``calls`` names the calls by their numbers."""
    best = _compared(plain, tracked, calls)
    if best.differences and any(record["turn"] for record in tracked.records):  # threads at once come in any order
        swapped = [record | {"turn": SWAPPED.get(record["turn"])} for record in tracked.records]
        other = _compared(plain, replace(tracked, records=swapped), calls)
        best = min(best, other, key=lambda verdict: len(verdict.differences))
    return best


def _compared(plain: Side, tracked: Side, calls: dict[int, str]) -> Verdict:
    comparison = _Comparison(plain, tracked)
    if comparison.records(calls):
        comparison.ends()
        comparison.entities()
    return comparison.verdict


class _Comparison:
    def __init__(self, plain: Side, tracked: Side) -> None:
        self.now = int(time.time() * 1000)
        self.pairs, self.verdict, self.own = Pairs(), Verdict(), tracked.own
        self.step = 0
        self.at_once = any(record["turn"] for record in plain.records)
        self.given = (plain, tracked)
        self.plain = self._levelled(plain)
        self.tracked = self._purposeless(self._levelled(tracked))

    # -- levelling -----------------------------------------------------------------------------------

    def _levelled(self, side: Side) -> dict[str, Any]:
        words = sorted((side.words | {side.tag: "TAG"}).items(), key=lambda pair: -len(pair[0]))
        return dict(
            self._level({"records": side.records, "entities": side.entities, "ends": side.ends}, words, side.experiment)
        )

    def _level(self, value: Any, words: list[tuple[str, str]], stand_in: str, key: str = "") -> Any:
        if isinstance(value, dict):
            level = {
                self._level(name, words, stand_in): self._level(item, words, stand_in, name)
                for name, item in value.items()
            }
            return _without_shared_tags(level)
        if isinstance(value, list):
            return [self._level(item, words, stand_in, key) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value - self.now) < DAY:
            return "<time>"
        if not isinstance(value, str):
            return value
        for word, level in words:
            value = value.replace(word, level)
        if stand_in:
            value = re.sub(rf"\b{stand_in}\b", DEFAULT, value)
        value = MOMENT.sub(lambda match: "<time>" if abs(int(match[0]) - self.now) < DAY else match[0], value)
        value = OTHER_TAG.sub("TAG", value)
        return TEMPORARY.sub("<temporary>", MADE_UP.sub("<made up>", ISO.sub("<time>", value)))

    def _purposeless(self, value: Any) -> Any:
        """Mark what tracking adds on purpose."""
        if isinstance(value, list):
            return [self._purposeless(item) for item in value]
        if not isinstance(value, dict):
            return value
        value = {key: self._purposeless(item) for key, item in value.items()}
        own = bool(self.own) and self.own in {value.get("run_uuid"), value.get("run_id"), *_run_ids(value.get("info"))}
        data = value["data"] if isinstance(value.get("data"), dict) else value  # a Run's, or a row of the store
        tagged = "pokebattle.execution" in (data.get("tags") or {}) or "tags.pokebattle.execution" in value
        own = own or tagged  # also the one that it moved away from
        for name in (PARENT, f"tags.{PARENT}"):
            if self.own and value.get(name) == self.own:
                value[name] = _Own(self.own)
        for name in ("mlflow.source.name", "tags.mlflow.source.name", "source_name"):
            if name in value:
                value[name] = _Own(value[name])
        return _marked(value) if own else value

    # -- calls ---------------------------------------------------------------------------------------

    def records(self, calls: dict[int, str]) -> bool:
        """Compare what every call returned or raised; return whether what follows can be compared, too."""
        plain, tracked = (_by_call(side["records"]) for side in (self.plain, self.tracked))
        parted = _first_on_purpose(self.plain["records"], tracked)
        keys = plain.keys() | tracked.keys()
        if parted is not None:  # what ended before
            keys = plain.keys() - {_call(record) for record in self.plain["records"][parted:]}
        for key in sorted(keys, key=lambda key: (key[0], str(key[1]))):
            self.step = int(key[0])
            where = calls.get(self.step, "?")
            before, after = plain.get(key, []), tracked.get(key, [])
            if len(before) != len(after):
                self._differ(f"{where}: times", len(before), len(after))
            for one, other in zip(before, after, strict=False):
                kind = "exceptions" if "error" in one else "values"
                self.verdict.counts[kind] += 1
                if ("error" in one) != ("error" in other):
                    self._differ(f"{where}: outcome", _outcome(one), _outcome(other))
                elif "error" in one and _repeated(one["error"], other["error"]):
                    self.verdict.counts["errors that are not repeated, on purpose"] += 1
                elif "error" in one:
                    self._walk(one["error"], other["error"], f"{where}: exception")
                else:
                    self._walk(one.get("value"), other.get("value"), f"{where}: value")
        self.step = 0
        self.verdict.counts["sequences compared up to a call that differs on purpose"] += parted is not None
        return parted is None

    def ends(self) -> None:
        """Compare how cells and kernel ended."""
        self._walk(self.plain["ends"], self.tracked["ends"], "ends")

    def _differ(self, where: str, plain: Any, tracked: Any) -> None:
        self.verdict.differences.append(Difference(where, plain, tracked, self.step))

    def _walk(self, plain: Any, tracked: Any, where: str) -> None:
        if isinstance(tracked, _Own):
            if plain is MISSING or not self._is_pair(plain, tracked.value):
                return
            tracked = tracked.value
        if plain is None and _is_own(tracked) and where.startswith(OWN_ANSWER):
            return
        if isinstance(plain, dict) and isinstance(tracked, dict):
            tracked = self._keyed_alike(plain, tracked)
            for key in [*plain, *(key for key in tracked if key not in plain)]:
                self._walk(plain.get(key, MISSING), tracked.get(key, MISSING), f"{where}.{key}")
        elif isinstance(plain, list) and isinstance(tracked, list):
            self._lists(plain, tracked, where)
        elif isinstance(plain, str) and isinstance(tracked, str):
            if not self._same_text(plain, tracked):
                self._differ(where, plain, tracked)
        elif type(plain) is not type(tracked) or plain != tracked:
            self._differ(where, plain, tracked)

    def _keyed_alike(self, plain: dict[str, Any], tracked: dict[str, Any]) -> dict[str, Any]:
        """Return the tracked side's mapping with the plain side's keys where only ids in them differ."""
        free = [key for key in plain if key not in tracked and ID.search(key)]
        renamed = {}
        for key in tracked:
            if key not in plain and (alike := next((one for one in free if self._same_text(one, key)), None)):
                free.remove(alike)
                renamed[key] = alike
        return {renamed.get(key, key): item for key, item in tracked.items()}

    def _is_pair(self, plain: Any, own: Any) -> bool:
        """Return whether the plain side has a counterpart of an intended difference, which then has to agree."""
        return own == self.own and isinstance(plain, str) and bool(ID.fullmatch(plain))

    def _lists(self, plain: list[Any], tracked: list[Any], where: str) -> None:
        if len(tracked) > len(plain):
            tracked = [item for item in tracked if not _is_own(item)]
        elif any(map(_is_own, tracked)):  # the execution's run began earlier than the run that it replaces
            plain, tracked = self._own_first(plain, tracked)
        if self.at_once:  # threads begin runs in any order
            tracked = self._paired(plain, tracked)
        if where.endswith(("model_inputs", "model_outputs")):
            plain, tracked = self._by_model(plain, tracked)
        if len(plain) != len(tracked):
            self._differ(f"{where}: length", [_brief(item) for item in plain], [_brief(item) for item in tracked])
            return
        for number, (one, other) in enumerate(zip(plain, tracked, strict=True)):
            self._walk(one, other, f"{where}[{number}]")

    def _paired(self, plain: list[Any], tracked: list[Any]) -> list[Any]:
        """Return the tracked side's list with runs that are paired where their counterparts are."""
        left, mates = list(tracked), []
        for one in plain:
            wanted = {self.pairs.tracked.get(run) for run in _run_ids(one)} - {None}
            mate = next((other for other in left if wanted & _run_ids(other)), None)
            mates.append(mate)
            if mate is not None:
                left.remove(mate)
        return [left.pop(0) if mate is None and left else mate for mate in mates] + left

    def _by_model(self, plain: list[Any], tracked: list[Any]) -> tuple[list[Any], list[Any]]:
        """Return both lists in one order: MLflow 3.17 reads them without any (`_get_model_outputs`).

        A model that is not paired yet is identified by its step alone.
        """
        sides = (
            [one | {"model_id": one["model_id"] if one["model_id"] in self.pairs.tracked else NEW} for one in plain],
            [one | {"model_id": self.pairs.plain.get(one["model_id"], NEW)} for one in tracked],
        )
        return sorted(sides[0], key=str), sorted(sides[1], key=str)

    def _own_first(self, plain: list[Any], tracked: list[Any]) -> tuple[list[Any], list[Any]]:
        own = next(item for item in tracked if _is_own(item))
        counterpart = self.pairs.plain.get(self.own)
        counterparts = [item for item in plain if counterpart and counterpart in _run_ids(item)]
        free = [item for item in plain if not self.pairs.tracked.keys() & _run_ids(item)]
        made_up = [item for item in free if "<made up>" in str(item)]  # with threads any of them
        place = tracked.index(own)
        counterparts = counterparts or sorted(
            made_up,
            key=lambda item: (
                len(_logged(item) ^ _logged(own)),
                _status(item) != _status(own),
                abs(plain.index(item) - place),
            ),
        )
        if not counterparts:
            return plain, tracked
        return (
            [counterparts[0], *(item for item in plain if item is not counterparts[0])],
            [own, *(item for item in tracked if item is not own)],
        )

    def _same_text(self, plain: str, tracked: str) -> bool:
        if plain == tracked:
            return True
        ours, theirs = ID.findall(plain), ID.findall(tracked)
        if len(ours) != len(theirs) or ID.sub("#", plain) != ID.sub("#", tracked):
            return False
        paired = [self.pairs.same(one, other) for one, other in zip(ours, theirs, strict=True)]
        return all(paired)

    # -- what was left behind ----------------------------------------------------------------------------

    def entities(self) -> None:
        """Compare experiments, runs, models and registered models."""
        plain, tracked = self.plain["entities"], self.tracked["entities"]
        for store in plain.keys() | tracked.keys():
            before, after = plain.get(store, {}), tracked.get(store, {})
            if not before or not after:
                self._walk(before, after, store)
                continue
            self._walk(before["experiments"], after["experiments"], f"{store} experiments")
            for kind, identity in (("runs", "run_uuid"), ("models", "model_id")):
                for one, other in self._matched(before[kind], after[kind], identity):
                    if _is_own(other) and one is None:
                        continue
                    if one is None or other is None:
                        self._differ(f"{store} {kind}: there", one and _brief(one), other and _brief(other))
                    else:
                        self._walk_entity(one, other, f"{store} {kind}")
            self._walk(before["registered"], after["registered"], f"{store} registered")
            for kind in ("experiments", "runs", "models", "registered"):
                self.verdict.counts["entities"] += len(before[kind])
            self.verdict.counts["entities"] += sum(len(one["versions"]) for one in before["registered"].values())
            with_artifacts = [*before["runs"], *before["models"]]
            self.verdict.counts["artifacts"] += sum(len(one["artifacts"]) for one in with_artifacts)
            metrics = [points for run in before["runs"] for points in run["metrics"].values()]
            self.verdict.counts["metric points"] += sum(map(len, metrics))

    def _walk_entity(self, plain: dict[str, Any], tracked: dict[str, Any], where: str) -> None:
        plain, tracked = dict(plain), dict(tracked)
        if "metrics" in plain and isinstance(plain["metrics"], dict):
            plain["metrics"] = {key: sorted(points, key=str) for key, points in plain["metrics"].items()}
            tracked["metrics"] = {
                key: points if isinstance(points, _Own) else sorted(points, key=str)
                for key, points in tracked["metrics"].items()
            }
        if plain.get("status") == "RUNNING" and tracked.get("status") in OWN_ENDS:
            for part in ("status", "end_time"):  # what is left open is closed
                plain.pop(part), tracked.pop(part)
        self._walk(plain, tracked, where)

    def _matched(self, plain: list[Any], tracked: list[Any], identity: str) -> Iterator[tuple[Any, Any]]:
        """Yield what belongs together: by pairs, else by names, else by the order of creation."""
        left = list(tracked)
        later = []
        for one in plain:
            known = self.pairs.tracked.get(one[identity])
            candidates = [other for other in left if other[identity] == known]
            if candidates:
                left.remove(candidates[0])
                yield one, candidates[0]
            else:
                later.append(one)
        unpaired = [other for other in left if other[identity] not in self.pairs.plain and not _is_own(other)]
        is_needed = len(later) > len(unpaired)  # else the own run is the additional one
        for one in later:  # the run that the own one moved away from has no counterpart
            free = [other for other in left if other[identity] not in self.pairs.plain]
            if identity == "run_uuid":
                free = [other for other in free if not _is_own(other) or (is_needed and other[identity] == self.own)]
            made_up = one["name"] == "<made up>"
            known = [other for other in left if other[identity] == self.pairs.tracked.get(one[identity])]
            fits = known or [other for other in free if other["name"] == one["name"] or (made_up and _is_own(other))]
            candidates = sorted(fits, key=lambda other: _likeness(one, other), reverse=True)
            if candidates:
                left.remove(candidates[0])
            yield one, candidates[0] if candidates else None
        for other in left:
            yield None, other


def _by_call(records: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    by_call: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for record in records:
        by_call.setdefault(_call(record), []).append(record)
    return by_call


def _call(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["step"], record["turn"]


def _first_on_purpose(plain: list[dict[str, Any]], tracked: dict[tuple[Any, ...], list[dict[str, Any]]]) -> int | None:
    """Return where, in the order in which calls end, the sides part on purpose for the first time.

    That is a write that is denied to plain MLflow and kept by tracking, or a call that uses the active run's
    experiment in another store: every store has a Default, but not the notebook's experiment.
    """
    seen: Counter[tuple[Any, ...]] = Counter()
    for place, record in enumerate(plain):
        others = tracked.get(_call(record), [])[seen[_call(record)] :]
        seen[_call(record)] += 1
        if _is_denied(record) and (not others or others[0].get("error") != record["error"]):
            return place
        if "error" not in record and others and NO_DEFAULT in others[0].get("error", ["", ""])[1]:
            return place
    return None


def _without_shared_tags(value: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment without tags if it is Default, on which other sequences set tags meanwhile."""
    if value.get("experiment_id") == DEFAULT and "artifact_location" in value and "model_id" not in value:
        value.pop("tags", None)
    return value


def _is_denied(record: dict[str, Any]) -> bool:
    """Return whether the account lacks a permission: tracking keeps the request until the account has it."""
    message = record.get("error", ["", ""])[1]
    return "failed with error code 403" in message or message.startswith("PERMISSION_DENIED")


def _repeated(plain: list[str], tracked: list[str]) -> bool:
    """Return whether plain MLflow has repeated a request that failed at the server; tracking does not."""
    return "too many 500 error responses" in plain[1] and tracked[0] == "mlflow.exceptions.RestException"


def _likeness(plain: dict[str, Any], tracked: dict[str, Any]) -> int:
    """Return how much two rows have in common."""
    parts = [(plain.get(part), tracked.get(part)) for part in ("params", "metrics", "tags", "artifacts")]
    same = sum(
        one[key] == other.get(key)
        for one, other in parts
        if isinstance(one, dict) and isinstance(other, dict)
        for key in one
        if key not in OWN_TAGS
    )
    children = [
        PARENT in row["tags"] and not isinstance(row["tags"][PARENT], _Own)
        for row in (plain, tracked)
        if isinstance(row.get("tags"), dict)
    ]
    return same + (len(set(children)) == 1)


def _logged(run: dict[str, Any]) -> set[tuple[str, str]]:
    """Return the metrics and parameters of a run, of an object or a row of a frame, that its cells have logged."""
    parts = run.get("data") if isinstance(run.get("data"), dict) else {}
    rows = {f"{part}.{key}": value for part in ("metrics", "params") for key, value in (parts.get(part) or {}).items()}
    return {
        (key, str(value))
        for key, value in (run | rows).items()
        if key.startswith(("metrics.", "params.")) and not isinstance(value, _Own)
    }


def _status(run: dict[str, Any]) -> Any:
    """Return the status of a run, of an object or a row of a frame."""
    return run["info"].get("status") if isinstance(run.get("info"), dict) else run.get("status")


def _outcome(record: dict[str, Any]) -> str:
    return " ".join(map(str, record["error"])) if "error" in record else f"returned {_short(record.get('value'))}"


def _run_ids(value: Any) -> set[str]:
    """Return the ids by which a value names a run."""
    if not isinstance(value, dict):
        return set()
    ids = {value[key] for key in ("run_uuid", "run_id") if isinstance(value.get(key), str)}
    return ids | (_run_ids(value["info"]) if isinstance(value.get("info"), dict) else set())


def _marked(run: dict[str, Any]) -> dict[str, Any]:
    """Mark the own run and what it has by itself."""
    marked = {"own": _Own(True)}
    for key, value in run.items():
        bare = re.sub(r"^(metrics|params|tags)\.", "", key)
        if key in OWN_FIELDS or key == "metric_objs" or bare in OWN_TAGS or (key != bare and OWN_KEYS.match(bare)):
            value = _Own(value)
        elif key in {"info", "data"} and isinstance(value, dict):
            value = {name: _Own(item) if name in OWN_FIELDS else item for name, item in _marked(value).items()}
            del value["own"]
        elif key in {"params", "metrics", "tags", "latest"} and isinstance(value, dict):
            own = {name for name in value if name in OWN_TAGS or OWN_KEYS.match(name)}
            value = {name: _Own(item) if name in own else item for name, item in value.items()}
        elif key == "artifacts" and isinstance(value, dict):
            value = {name: _Own(item) if OWN_FILES.fullmatch(name) else item for name, item in value.items()}
        marked[key] = value
    return marked


def _is_own(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("own"), _Own)


def _brief(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "info" in value:
        value = value["info"] if isinstance(value["info"], dict) else value
    return {
        key: str(getattr(item, "value", item))[:80]
        for key, item in value.items()
        if key in {"name", "run_name", "status", "lifecycle_stage", "path", "version", "params"}
    }


def _short(value: Any) -> str:
    text = repr(getattr(value, "value", value))
    return text if len(text) < 600 else f"{text[:400]} … {text[-200:]}"
