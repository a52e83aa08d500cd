"""Takes requests to the server, in order and exactly once, however often it has to begin again.

A request that was sent may have been carried out although no answer came. Metric points, parameters, tags and files
may be sent twice without harm; what the server gives an id of its own (runs, models, versions) carries a local id as
the tag ``pokebattle.local_id``, is looked for before it is created a second time, and doubles are deleted in the end.
"""

import contextlib
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokebattle.tracking.ids import LOCAL, LOCAL_ID
from pokebattle.tracking.journal import Progress, write_atomically
from pokebattle.tracking.shipping.rest import BATCH, Chunks, MlflowRest, ServerError, file_chunks

PERSISTENCE = 60.0  # seconds for which an error inside the server is taken to pass
PUZZLING = {404, 500}  # without a reason of MLflow's: the server's own trouble, or something that it cannot store
EXISTS = {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}


class RefusedError(Exception):
    """The server refuses the execution as a whole; somebody must do something about it."""


@dataclass
class Item:
    """One thing to deliver; without what is ``vital`` there is no run."""

    since: float = field(default=0.0, init=False)  # monotonic time of the first failure; 0 when there was none
    vital: bool = field(default=False, init=False)


@dataclass
class Batch(Item):
    """Metric points, parameters and tags of one run."""

    run: str
    metrics: list[dict[str, Any]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def takes(self, other: "Batch") -> bool:
        """Tell whether ``other`` can travel in this batch without changing what either means."""
        clash = any(self.params.get(key, value) != value for key, value in other.params.items())
        return self.run == other.run and len(self.metrics) < BATCH["metrics"] and not clash

    def halves(self) -> "list[Batch]":
        """Return two smaller batches; none when there is only one thing in it."""
        parts: list[tuple[str, Any]] = [
            *(("metrics", point) for point in self.metrics),
            *(("params", pair) for pair in self.params.items()),
            *(("tags", pair) for pair in self.tags.items()),
        ]
        cut = len(parts) // 2
        return [_batch(self.run, half) for half in (parts[:cut], parts[cut:])] if cut else []

    def __str__(self) -> str:
        names = [*(point["key"] for point in self.metrics), *self.params, *self.tags]
        return f"{', '.join(sorted(set(names)))[:200]} of run {self.run}"


def _batch(run: str, parts: list[tuple[str, Any]]) -> Batch:
    def kind(name: str) -> list[Any]:
        return [part for what, part in parts if what == name]

    return Batch(run, kind("metrics"), dict(kind("params")), dict(kind("tags")))


@dataclass
class Experiment(Item):
    """The experiment that an execution's run belongs to: found, else created."""

    name: str
    token: str
    root: str

    def __str__(self) -> str:
        return f"experiment {self.name}"


@dataclass
class Call(Item):
    """A request of MLflow's API.

    ``token`` is the local id under which the answer is noted, ``creates`` what it creates (experiment, run, model,
    registered or version), ``root`` the local id of the artifact folder that comes with it. What is ``shared`` may have
    been created by another execution, and is looked for first.
    """

    method: str
    path: str
    body: dict[str, Any]
    token: str = ""
    creates: str = ""
    root: str = ""
    shared: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body)[:200]}"


@dataclass
class Removal(Item):
    """A run (the server's id) that is no longer wanted."""

    run: str

    def __str__(self) -> str:
        return f"removal of run {self.run}"


@dataclass
class File(Item):
    """An artifact: ``path`` below the folder ``root`` (a local id, or a path of the server's)."""

    root: str
    path: str
    chunks: Chunks
    staged: Path | None = None

    def __str__(self) -> str:
        return f"artifact {self.path}"


class Delivery:
    """The way of one execution's requests to the server.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    uri : str
        The server.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.progress = Progress(folder)
        self.rest = MlflowRest(uri)
        self.queue: deque[Item] = deque()
        self.spent: list[Path] = []  # staged files that the server has
        self.replaying = False  # the journal is read again: what it says is on the server already
        self._resumed = bool(self.progress.offset or self.progress.ids or self.progress.facts)
        self._doubtful: list[Call] = []

    def put(self, item: Item) -> None:
        """Queue an item; small ones travel together."""
        if self.replaying:
            return
        last = self.queue[-1] if self.queue else None
        if isinstance(item, Batch) and isinstance(last, Batch) and not last.since and last.takes(item):
            last.metrics += item.metrics
            last.params |= item.params
            last.tags |= item.tags
        else:
            self.queue.append(item)

    def flush(self) -> None:
        """Deliver what is queued.

        Raises
        ------
        OSError, ServerError
            The server does not answer, or not now; the rest stays queued.
        RefusedError
            It will not take anything of this execution.
        """
        while self.queue:
            item = self.queue[0]
            try:
                self._deliver(item)
            except (OSError, ServerError) as error:
                if isinstance(error, ServerError) and error.denied and not _registers(item):
                    raise RefusedError(str(error)) from error
                hopeless = self._is_hopeless(item, error)
                if hopeless and item.vital:
                    raise RefusedError(str(error)) from error
                if not hopeless:
                    item.since = item.since or time.monotonic()
                    raise
                if isinstance(item, Batch) and (halves := item.halves()):
                    self.queue.popleft()
                    self.queue.extendleft(reversed(halves))
                    continue
                self.set_aside(item, str(error))
            except RefusedError:
                raise
            except Exception as error:  # what cells made of it cannot be read
                if item.vital:
                    raise
                self.set_aside(item, f"{type(error).__name__}: {error}")
            self.queue.popleft()

    def _is_hopeless(self, item: Item, error: OSError | ServerError) -> bool:
        """Tell whether trying again is in vain: MLflow said no, or fails at this item alone."""
        if isinstance(error, OSError):
            return False
        return error.permanent or (error.status in PUZZLING and self._fails_alone(item))

    def _fails_alone(self, item: Item) -> bool:
        """Tell whether an item has failed for long, and once more since the server was seen to be well.

        It is counted over everybody who tried, as a shipper and those that drain the spool follow each other.
        """
        what, since, well = self.progress.facts.get("stuck") or ("", 0.0, False)
        if what != str(item):
            self.progress.note(stuck=[str(item), time.time(), False])
        elif time.time() - since > PERSISTENCE:
            if (now := self.rest.healthy()) and well:
                return True
            self.progress.note(stuck=[what, since, now])
        return False

    def _deliver(self, item: Item) -> None:
        if isinstance(item, Batch):
            whole = self.translate({"run_id": item.run, "metrics": item.metrics, "params": item.params,
                                    "tags": item.tags})  # fmt: skip
            self.rest.log_batch(**whole)
            self.progress.beat()
        elif isinstance(item, File):
            self._upload(item)
        elif isinstance(item, Call):
            self._call(item)
        elif isinstance(item, Removal):
            found = self.rest.call("GET", "runs/get", run_id=item.run)["run"]["info"]
            if found["lifecycle_stage"] == "active":
                self.rest.call("POST", "runs/delete", run_id=item.run)
        elif isinstance(item, Experiment):
            found = self.rest.experiment(item.name)
            self.progress.note(ids={item.token: found["experiment_id"], item.root: found["artifact_location"]})

    def translate(self, value: Any) -> Any:
        """Return a JSON value with the server's ids in place of local ones.

        Raises
        ------
        ServerError
            It names something that the server has refused to create.
        """
        text = json.dumps(value)
        if "10ca1" not in text:
            return value
        text = self.translate_text(text)
        own = value.get("tags", []) if isinstance(value, dict) else []
        allowed = {tag["value"] for tag in own if isinstance(tag, dict) and tag.get("key") == LOCAL_ID}
        if missing := {match[2] for match in LOCAL.finditer(text)} - allowed:
            raise ServerError(400, "NOT_CREATED", f"{missing.pop()} could not be created")
        return json.loads(text)

    def translate_text(self, text: str) -> str:
        """Return ``text`` with the server's ids, as far as they are known."""

        def replace(match: re.Match[str]) -> str:
            known = self.progress.ids.get(match[2])
            if known is None:
                return match[0]
            return known if match[1] or ":" not in known else known.removeprefix("mlflow-artifacts:/")

        return LOCAL.sub(replace, text)

    def _upload(self, item: File) -> None:
        root = self.progress.ids.get(item.root, "") if LOCAL.fullmatch(item.root) else f"mlflow-artifacts:/{item.root}"
        if not root:
            raise ServerError(400, "NOT_CREATED", f"{item.root} could not be created")
        self.rest.upload(root, item.path, self._content(item), self.progress.beat)
        if item.staged:
            self.spent.append(item.staged)

    def _content(self, item: File) -> Chunks:
        if Path(item.path).name != "MLmodel":
            return item.chunks
        text = self.translate_text(b"".join(item.chunks()).decode("utf-8"))  # it names run and model
        return lambda: [text.encode()]

    def _call(self, call: Call) -> None:
        path, body = self.translate(call.path), self.translate(call.body)
        answer: dict[str, Any] | None = None
        try:
            if self._resumed or call.since or call.shared:
                if call not in self._doubtful and not call.shared:  # a search mends its own doubles
                    self._doubtful.append(call)
                answer = next(iter(self._created(call, body)), None)
            if answer is None:
                answer = self.rest.call(call.method, path, **body)
        except ServerError as error:
            if call.token and error.permanent:
                said = {"error_code": error.code, "message": error.message}
                self.progress.note(answers={call.token: {"status": error.status, "body": said}})
            if error.code not in EXISTS and (call.method != "GET" or not error.permanent):
                raise
            if call.creates == "experiment":
                found = self.rest.experiment(body["name"])
                self.progress.note(ids={call.token: found["experiment_id"], call.root: found["artifact_location"]})
            return
        if call.creates == "experiment" and call.root:  # the answer holds the id alone
            answer |= self.rest.call("GET", "experiments/get", experiment_id=answer["experiment_id"])
        if call.token:
            self.progress.note(ids=_ids_of(call, answer), answers={call.token: {"status": 200, "body": answer}})

    def _created(self, call: Call, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield, as answers to the call, what was created by it before."""
        tag = f"tags.`{LOCAL_ID}` = '{call.token}'"
        if call.creates == "run":
            found = self.rest.call("POST", "runs/search", experiment_ids=[body["experiment_id"]], filter=tag)
            yield from ({"run": run} for run in found.get("runs", []))
        elif call.creates == "model":
            found = self.rest.call("POST", "logged-models/search", experiment_ids=[body["experiment_id"]], filter=tag)
            yield from ({"model": model} for model in found.get("models", []))
        elif call.creates == "version":
            found = self.rest.call("GET", "model-versions/search", filter=f"name='{body['name']}'", max_results=1000)
            for version in found.get("model_versions", []):
                if {"key": LOCAL_ID, "value": call.token} in version.get("tags", []):
                    yield {"model_version": version}

    def remove_doubles(self) -> None:
        """Delete what a server that was slow to wake up has created a second time."""
        for call in self._doubtful:
            body = self.translate(call.body)
            for answer in self._created(call, body):
                ids = _ids_of(call, answer)
                if all(self.progress.ids.get(local) == given for local, given in ids.items() if local != call.root):
                    continue
                if call.creates == "run":
                    self.rest.call("POST", "runs/delete", run_id=answer["run"]["info"]["run_id"])
                elif call.creates == "model":
                    self.rest.call("DELETE", f"logged-models/{answer['model']['info']['model_id']}")
                else:
                    version = answer["model_version"]
                    self.rest.call("DELETE", "model-versions/delete", name=version["name"], version=version["version"])
        self._doubtful.clear()

    def set_aside(self, item: Item, error: str) -> None:
        """Write down what cannot be delivered, and go on; files and what goes to the registry can be tried again."""
        entry: dict[str, Any] = {"what": str(item), "error": error}
        if isinstance(item, File) and (kept := self._kept(item)):
            entry["file"] = kept
        if isinstance(item, Call) and _registers(item):
            with contextlib.suppress(ServerError):  # it names what is not there
                path, body = self.translate(item.path), self.translate(item.body)
                fields = (item.method, path, body, item.token, item.creates, item.root)
                entry["call"] = fields
        line = json.dumps(entry) + "\n"
        if line not in self.aside():
            with (self.folder / "aside.jsonl").open("a", encoding="utf-8") as file:
                file.write(line)

    def _kept(self, item: File) -> tuple[str, str, str] | None:
        """Keep a file that the server does not take; return its folder there, its path in it, its name here."""
        root = self.progress.ids.get(item.root, "" if LOCAL.fullmatch(item.root) else f"mlflow-artifacts:/{item.root}")
        if not root:
            return None
        kept = self.folder / "files" / f"aside-{hashlib.sha256(f'{root}/{item.path}'.encode()).hexdigest()[:16]}"
        try:
            kept.parent.mkdir(exist_ok=True, mode=0o700)
            kept.unlink(missing_ok=True)
            chunks = self._content(item)
            if item.staged and chunks is item.chunks:
                kept.hardlink_to(item.staged)
            else:
                with kept.open("wb") as file:
                    file.writelines(chunks())
        except Exception:  # a full disk, or a notebook that cannot be put together
            return None
        return root, item.path, kept.name

    def retry_aside(self) -> None:
        """Try again, in order, what may be taken by now: somebody may have been allowed to register since.

        Raises
        ------
        OSError, ServerError
            The server does not answer, or not now.
        """
        for line in self.aside():
            entry = json.loads(line)
            try:
                if fields := entry.get("call"):
                    call = Call(*fields)
                    call.since = time.monotonic()  # so that it is looked for before it is made
                    self._call(call)
                elif (fields := entry.get("file")) and (kept := self.folder / "files" / fields[2]).is_file():
                    self.rest.upload(fields[0], fields[1], file_chunks(kept), self.progress.beat)
                    kept.unlink()
                else:
                    continue
            except ServerError as error:
                if not (error.permanent or ("file" in entry and error.status in PUZZLING)):
                    raise
                continue
            rest = [other for other in self.aside() if other != line]
            write_atomically(self.folder / "aside.jsonl", "".join(rest))
        if not self.aside():
            (self.folder / "aside.jsonl").unlink(missing_ok=True)

    def aside(self) -> list[str]:
        """Return the lines that `set_aside` wrote."""
        try:
            return (self.folder / "aside.jsonl").read_text("utf-8").splitlines(keepends=True)
        except OSError:
            return []


def _registers(item: Item) -> bool:
    """Tell whether an item belongs to the registry, which may be closed to somebody who may log runs."""
    return isinstance(item, Call) and ("/registered-models/" in item.path or "/model-versions/" in item.path)


def _ids_of(call: Call, answer: dict[str, Any]) -> dict[str, str]:
    """Return the server's ids in an answer by the local ones."""
    if call.creates == "run":
        info = answer["run"]["info"]
        return {call.token: info["run_id"], call.root: info["artifact_uri"]}
    if call.creates == "model":
        info = answer["model"]["info"]
        return {f"m-{call.token}": info["model_id"], call.root: info["artifact_uri"]}
    if call.creates == "version":
        return {call.token: str(answer["model_version"]["version"])}
    if call.creates == "experiment":
        found = answer["experiment"]
        return {call.token: found["experiment_id"], call.root: found.get("artifact_location", "")}
    return {}
