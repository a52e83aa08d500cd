"""Sends requests to the server, in order and exactly once, even if delivery has to start again.

A request that was sent may have been carried out although no response came. Metric points, parameters, tags and files
may be sent twice without harm. What gets an id from the server (runs, models, versions) carries a local id in the tag
``pokebattle.local_id``, is searched for before it is created a second time, and duplicates are deleted at the end.
For what a kernel sent without that tag, and for what changes something, the server is asked first: see `idempotency`.

If the server does not accept an item, only that item is set aside, and retried later if that can succeed.
"""

import contextlib
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbtrack.errors import ServerError, is_unclear
from nbtrack.files import write_atomically
from nbtrack.journal import Progress
from nbtrack.local_ids import LOCAL
from nbtrack.mlflow_rest import API, Chunks, MlflowRest, file_chunks
from nbtrack.sender import idempotency
from nbtrack.sender.queue_items import (
    Batch,
    Call,
    Experiment,
    File,
    Item,
    Removal,
    carries_id,
    id_of,
    ids_of,
    registers,
)
from nbtrack.tags import LOCAL_ID, SEEN

PERSISTENCE = 60.0  # seconds for which an internal error of the server counts as temporary
AMBIGUOUS = {404, 500}  # status without MLflow's reason: the server has a problem, or cannot store the item
ATTEMPTS, PAUSE = 3, 0.5  # attempts at one item while the server accepts others, and seconds between them
EXISTS = {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"}


class ServerRefusesError(Exception):
    """The server refuses the whole execution; a user has to act before it can be delivered."""


class Sender:
    """Delivers one execution's requests to the server.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    uri : str
        The server's address.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.progress = Progress(folder)
        self.rest = MlflowRest(uri, heard=self._heard)
        self.queue: deque[Item] = deque()
        self.own_run = self.own_root = ""  # local ids of the execution's run and of its artifact folder
        self.spent: list[Path] = []  # staged files that are on the server
        self.replaying = False  # the journal is read again: its items are on the server already
        self.moving = False  # the same, except for the execution's run, which is created again elsewhere
        self._resumed = bool(self.progress.offset or self.progress.ids or self.progress.facts)
        self._doubtful: list[Call] = []
        self._blamed = ""  # names and error of the item last set aside: an item with the same is set aside undivided

    def _heard(self, seconds: float) -> None:
        """Show a waiting kernel that the server responds, and how long its first response took."""
        if "took" in self.progress.facts:
            self.progress.beat()
        else:
            self.progress.note(took=round(seconds, 3))

    def put(self, item: Item) -> None:
        """Queue an item; small batches are combined.

        Parameters
        ----------
        item : Item
        """
        if self.replaying or (self.moving and not self._is_own(item)):
            if isinstance(item, Call) and item.doubtful and item.creates:  # a duplicate may still appear
                self._doubtful.append(item)
            return
        last = self.queue[-1] if self.queue else None
        if isinstance(item, Batch) and isinstance(last, Batch) and not last.failures and last.takes(item):
            last.metrics += item.metrics
            last.params |= item.params
            last.tags |= item.tags
        else:
            self.queue.append(item)

    def owns(self, run: str) -> bool:
        """Return whether an id, the server's or a local one, is that of the execution's run.

        Parameters
        ----------
        run : str
        """
        return run in {self.own_run, self.progress.ids.get(self.own_run)}

    def _is_own(self, item: Item) -> bool:
        """Return whether an item belongs to the execution's run."""
        if isinstance(item, Call):
            return item.token == self.own_run or self.owns(str(item.body.get("run_id")))
        if isinstance(item, Batch):
            return self.owns(item.run)
        return not isinstance(item, File) or item.root == self.own_root

    def flush(self) -> None:
        """Deliver what is queued.

        Raises
        ------
        OSError, ServerError
            If the server does not answer, or cannot accept an item now; the rest remains queued.
        ServerRefusesError
            If the server will not accept anything of this execution.
        """
        while self.queue:
            item = self.queue[0]
            try:
                self._deliver(item)
            except (OSError, ServerError) as error:
                item.failures += 1
                item.unclear = item.unclear or is_unclear(error)
                if self._is_to_wait(item, error):
                    raise
                if self._again(item, error):
                    continue
                self.set_aside(item, error)
            except ServerRefusesError:
                raise
            except Exception as error:  # content from a cell that cannot be read
                if item.vital:
                    raise
                self.set_aside(item, error)
            self.queue.popleft()
            if self.progress.facts.get("stuck"):
                self.progress.note(stuck=None)

    def _is_to_wait(self, item: Item, error: OSError | ServerError) -> bool:
        """Return whether delivery has to wait because of the server, rather than because of the item.

        Raises
        ------
        ServerRefusesError
            If the server accepts nothing of this execution.
        """
        if isinstance(error, OSError):
            return True
        if error.status == 401 or (item.vital and (error.denied or error.permanent)):
            raise ServerRefusesError(str(error)) from error
        if self._concerns_own(item) and (gone := self._gone(self.own_run)):
            raise ServerRefusesError(gone) from error
        if registers(item) and error.denied:
            return False
        if error.denied and not self._takes_more():
            raise ServerRefusesError(str(error)) from error
        if error.denied or error.permanent:
            return False
        if item.vital or error.status not in AMBIGUOUS:
            hopeless = self._fails_alone(item)
            if hopeless and item.vital:
                raise ServerRefusesError(str(error)) from error
            return not hopeless
        return not self._takes_more()

    def _again(self, item: Item, error: OSError | ServerError) -> bool:
        """Return whether a failed item is retried, a batch in two halves, while the server accepts others."""
        assert isinstance(error, ServerError)
        more_of_it = str(item) + str(error) == self._blamed
        halves = item.halves() if isinstance(item, Batch) and not (error.denied or more_of_it) else []
        if isinstance(item, Batch) and halves and not self._gone(item.run):
            self.queue.popleft()
            self.queue.extendleft(reversed(halves))
            return True
        if error.permanent and not (error.denied and not registers(item)):
            return False
        if item.failures < ATTEMPTS:
            time.sleep(PAUSE)
        return item.failures < ATTEMPTS

    def _concerns_own(self, item: Item) -> bool:
        """Return whether an item writes to the execution's own run."""
        run = item.run if isinstance(item, Batch) else item.body.get("run_id") if isinstance(item, Call) else ""
        return bool(run) and self.own_run in self.progress.ids and self.owns(str(run))

    def _gone(self, run: str) -> str:
        """Return why a run is deleted and cannot be written to; an empty string if it is not deleted.

        Raises
        ------
        OSError
            If the server does not answer.
        """
        run_id = self.progress.ids.get(run, run)
        try:
            info = self.rest.call("GET", "runs/get", run_id=run_id)["run"]["info"]
        except ServerError as error:
            if not error.missing or (error.denied and run == self.own_run and not self._sees_experiment()):
                return ""
            return f"run {run_id} is no longer on the server: it was deleted for good"
        if info.get("lifecycle_stage") != "deleted":
            return ""
        return f"run {run_id} was deleted: `mlflow runs restore --run-id {run_id}` restores it"

    def _sees_experiment(self) -> bool:
        """Return whether this account may read the experiment: a run that it cannot see then does not exist."""
        try:
            known = self.progress.facts["run"]["experiment_id"]
            return bool(self.rest.call("GET", "experiments/get", experiment_id=known))
        except (KeyError, ServerError):
            return False

    def _takes_more(self) -> bool:
        """Return whether the server currently accepts writes from this execution."""
        if self.own_run not in self.progress.ids:
            return self.rest.healthy()
        try:
            self.rest.log_batch(self.progress.ids[self.own_run], tags={SEEN: str(int(time.time() * 1000))})
            return True
        except (OSError, ServerError):
            return False

    def _fails_alone(self, item: Item) -> bool:
        """Return whether an item has failed for a minute, several times while the server accepted others.

        Attempts are counted across processes, as a sender and processes that drain the spool follow each other.
        """
        what, since, well = self.progress.facts.get("stuck") or ("", 0.0, 0)
        if what != str(item):
            self.progress.note(stuck=[str(item), time.time(), 0])
            return False
        well = int(well) + self._takes_more()
        self.progress.note(stuck=[what, since, well])
        return well >= ATTEMPTS and not _is_recent(since)

    def _deliver(self, item: Item) -> None:
        if isinstance(item, Batch):
            whole = self.translate(
                {"run_id": item.run, "metrics": item.metrics, "params": item.params, "tags": item.tags}
            )
            self.rest.log_batch(**whole)
            self._forget_superseded(item)
        elif isinstance(item, File):
            self._upload(item)
        elif isinstance(item, Call):
            self._call(item)
        elif isinstance(item, Removal):
            info = self.rest.call("GET", "runs/get", run_id=item.run)["run"]["info"]
            if info["lifecycle_stage"] == "active":
                self.rest.call("POST", "runs/delete", run_id=item.run)
        elif isinstance(item, Experiment):
            experiment = self._given(item.given_id) or self.rest.experiment(item.name)
            self.progress.note(
                ids={item.token: experiment["experiment_id"], item.root: experiment["artifact_location"]}
            )

    def _given(self, experiment_id: str) -> dict[str, Any] | None:
        """Return the experiment whose id the environment names; None if the server does not have it."""
        if not experiment_id:
            return None
        try:
            return dict(self.rest.call("GET", "experiments/get", experiment_id=experiment_id)["experiment"])
        except ServerError as error:
            if not error.permanent:
                raise
            return None

    def translate(self, value: Any) -> Any:
        """Return a JSON value with the server's ids in place of local ones.

        Parameters
        ----------
        value : object

        Raises
        ------
        ServerError
            If it contains the local id of something that the server has refused to create.
        """
        text = json.dumps(value)
        if not LOCAL.search(text):
            return value
        text = self.translate_text(text)
        run_tags = value.get("tags", []) if isinstance(value, dict) else []
        allowed = {tag["value"] for tag in run_tags if isinstance(tag, dict) and tag.get("key") == LOCAL_ID}
        if missing := {match[2] for match in LOCAL.finditer(text)} - allowed:
            raise ServerError(400, "NOT_CREATED", f"{missing.pop()} could not be created")
        return json.loads(text)

    def translate_text(self, text: str) -> str:
        """Return ``text`` with the server's ids in place of local ones, as far as they are known.

        Parameters
        ----------
        text : str
        """

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
        if item.staged and not item.staged.is_file():
            raise ServerError(400, "FILE_IS_GONE", f"{item.staged.name} is no longer in the spool")
        self.rest.upload(root, item.path, self._content(item), self.progress.beat)
        if item.staged and item.root != self.own_root:  # the run may be created again elsewhere
            self.spent.append(item.staged)

    def _content(self, item: File) -> Chunks:
        if Path(item.path).name != "MLmodel":
            return item.chunks
        text = self.translate_text(b"".join(item.chunks()).decode("utf-8"))  # it contains the ids of run and model
        return lambda: [text.encode()]

    def _call(self, call: Call) -> None:
        if self.progress.answers.get(call.token, {}).get("status") == 200:  # answered in an earlier delivery
            return
        path, body = self.translate(call.path), self.translate(call.body)
        try:
            answer = self._earlier(call, body)
            if answer is None:
                answer = self._send(call, path, body)
            if call.creates == "experiment" and call.root:  # the response contains only the id
                answer |= self.rest.call("GET", "experiments/get", experiment_id=answer["experiment_id"])
        except ServerError as error:
            if self._may_be_repeated(call) and idempotency.says_done(call.method, call.name, error):
                answer = {}
            elif error.code in EXISTS and call.creates == "experiment":
                answer = {"experiment": self.rest.experiment(body["name"])}
            else:
                self._note_refusal(call, error)
                if error.code in EXISTS or (call.method == "GET" and error.permanent):
                    return
                raise
        if call.token:
            self.progress.note(ids=ids_of(call, answer), answers={call.token: {"status": 200, "body": answer}})

    def _note_refusal(self, call: Call, error: ServerError) -> None:
        if call.token and error.permanent:
            body = {"error_code": error.code, "message": error.message}
            self.progress.note(answers={call.token: {"status": error.status, "body": body}})

    def _may_be_repeated(self, call: Call) -> bool:
        """Return whether a request may already have been carried out."""
        if call.unclear or call.shared or call.doubtful:
            return True
        if call.creates or not call.token:
            return self._resumed
        return self.progress.facts.get("sent") == call.token

    def _send(self, call: Call, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request, recorded first so that a later process knows that it may have been carried out."""
        noted = bool(call.token) and not call.creates and not idempotency.is_harmless(call.method, call.name)
        if noted:
            self.progress.note(sent=call.token)
        try:
            answer = self.rest.call(call.method, path, **body)
        except (OSError, ServerError) as error:
            if noted and not is_unclear(error):
                self.progress.note(sent=None)
            raise
        return answer

    def _earlier(self, call: Call, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the response to a request that was already carried out, if the server shows it; else None."""
        if not self._may_be_repeated(call):
            return None
        if not call.creates:
            return idempotency.carried_out(self.rest, call.method, call.name, body, call.asked)
        if call not in self._doubtful and not call.shared:  # a search handles its own duplicates
            self._doubtful.append(call)
        return next(self._created(call, body), None)

    def _created(self, call: Call, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield, as responses to the call, what it has already created."""
        if carries_id(call, body):
            yield from self._tagged(call, body)
            return
        others = [answer["body"] for token, answer in self.progress.answers.items() if token != call.token]
        taken = {*call.known, *(id_of(call, other) for other in others)}
        for answer in idempotency.created(self.rest, call.creates, body, call.asked):
            if id_of(call, answer) not in taken:
                yield answer

    def _tagged(self, call: Call, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        tag = f"tags.`{LOCAL_ID}` = '{call.token}'"
        if call.creates == "run":
            answer = self.rest.call("POST", "runs/search", experiment_ids=[body["experiment_id"]], filter=tag)
            yield from ({"run": run} for run in answer.get("runs", []))
        elif call.creates == "model":
            answer = self.rest.call("POST", "logged-models/search", experiment_ids=[body["experiment_id"]], filter=tag)
            yield from ({"model": model} for model in answer.get("models", []))
        elif call.creates == "version":
            for version in idempotency.newest_versions(self.rest, body["name"]):
                if {"key": LOCAL_ID, "value": call.token} in version.get("tags", []):
                    yield {"model_version": version}

    def remove_doubles(self) -> None:
        """Delete duplicates that a slow server has created.

        Raises
        ------
        OSError, ServerError
            As `MlflowRest.call`.
        """
        for call in self._doubtful:
            body = self.translate(call.body)
            if not (call.exact or carries_id(call, body)):
                continue
            for answer in self._created(call, body):
                ids = ids_of(call, answer)
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

    def set_aside(self, item: Item, error: Exception) -> None:
        """Record an item that cannot be delivered; what the server may accept later can be retried.

        Parameters
        ----------
        item : Item
        error : Exception
            Why it cannot be delivered.
        """
        reason = str(error) if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
        entry: dict[str, Any] = {"what": self.translate_text(str(item)), "error": reason}
        passing = isinstance(error, ServerError) and (error.denied or not error.permanent)
        if isinstance(item, File) and (kept := self._kept(item)):
            entry["file"] = kept
        with contextlib.suppress(ServerError):  # it names something that does not exist
            if isinstance(item, Call) and (passing or registers(item)) and not _is_undecided(error):
                path, body = self.translate(item.path), self.translate(item.body)
                entry["call"] = (item.method, path, body, item.token, item.creates, item.root)
                entry |= {"asked": item.asked, "unclear": self._may_be_repeated(item)}
            elif isinstance(item, Batch) and passing:
                entry["call"] = ("POST", f"{API}runs/log-batch", self.translate(item.body()))
        self._blamed = str(item) + str(error)
        lines = self.aside()
        if json.loads(json.dumps(entry)) not in [_without(json.loads(line), "since") for line in lines]:
            if isinstance(error, ServerError) and not error.permanent:
                entry["since"] = time.time()
            self._write_aside([*lines, json.dumps(entry) + "\n"])

    def _write_aside(self, lines: list[str]) -> None:
        if lines:
            write_atomically(self.folder / "aside.jsonl", "".join(lines))
        else:
            (self.folder / "aside.jsonl").unlink(missing_ok=True)

    def _forget_superseded(self, batch: Batch) -> None:
        """Drop what was set aside to set a tag, if the tag has been set since."""
        fresh = {(self.progress.ids.get(batch.run, batch.run), key) for key in batch.tags}
        lines = self.aside() if fresh else []
        for line in lines:
            _, path, body, *_ = json.loads(line).get("call", ("", "", {}))
            if path.endswith("log-batch") and {(body["run_id"], tag["key"]) for tag in body["tags"]} & fresh:
                self._write_aside([other for other in self.aside() if other != line])

    def _kept(self, item: File) -> tuple[str, str, str] | None:
        """Keep a file that the server does not accept; return its folder and path there, and its name here."""
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
        except Exception:  # the disk is full, or the notebook cannot be reconstructed
            return None
        return root, item.path, kept.name

    def retry_aside(self) -> None:
        """Retry in order what was set aside and may succeed now, for example because permission was granted.

        Raises
        ------
        OSError, ServerError
            If the server does not answer, or failed at an item less than a minute ago.
        """
        waits: ServerError | None = None
        for line in self.aside():
            entry = json.loads(line)
            try:
                if fields := entry.get("call"):
                    call = Call(*fields)
                    call.asked = entry.get("asked", 0)
                    call.unclear = bool(call.creates) or entry.get("unclear", False)
                    self._call(call)
                elif (fields := entry.get("file")) and (kept := self.folder / "files" / fields[2]).is_file():
                    self.rest.upload(fields[0], fields[1], file_chunks(kept), self.progress.beat)
                    kept.unlink()
                else:
                    continue
            except ServerError as error:
                if not error.denied and not error.permanent and _is_recent(entry.get("since", 0.0)):
                    waits = waits or error
                continue
            self._write_aside([other for other in self.aside() if other != line])
        if waits:
            raise waits

    def describe_aside(self) -> list[str]:
        """Return what was set aside, and why, as text for users."""
        entries = map(json.loads, self.aside())
        return [LOCAL.sub("?", f"{entry['what']} ({entry['error']})") for entry in entries]

    def aside(self) -> list[str]:
        """Return the lines that `set_aside` wrote."""
        try:
            return (self.folder / "aside.jsonl").read_text("utf-8").splitlines(keepends=True)
        except OSError:
            return []


def _without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


def _is_recent(since: float) -> bool:
    """Return whether a time is less than a minute ago; false for a time in the future (a clock that was set back)."""
    return 0 <= time.time() - since < PERSISTENCE


def _is_undecided(error: Exception) -> bool:
    return isinstance(error, ServerError) and error.code == idempotency.UNCLEAR
