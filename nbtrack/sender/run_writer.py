"""Deliver one execution: its requests, its artifacts and its final status."""

import contextlib
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from nbtrack import events, tags
from nbtrack.cells import ANSI
from nbtrack.executions import run_address
from nbtrack.files import read_json, to_json, write_atomically
from nbtrack.journal import NOT_ENDED
from nbtrack.local_ids import MARKS
from nbtrack.mlflow_rest import LIMIT, ServerError, storable
from nbtrack.secrets import Masker
from nbtrack.sender.executed_notebook import ExecutedNotebook
from nbtrack.sender.journal_reader import JournalReader
from nbtrack.sender.queue_items import Batch, Call, File
from nbtrack.sender.run_status import Verdict, order, verdict
from nbtrack.sender.sender import Sender, ServerRefusesError
from nbtrack.settings import destination_of, server_record

LEFT = {"run.json", "aside.jsonl", "lock"}  # what remains of an execution that is on the server
HEARTBEAT = 300.0  # seconds between two heartbeats on an open run


class RunWriter:
    """Delivers one execution, from the first request to the last.

    Parameters
    ----------
    folder : Path
        The execution's folder, which the caller has locked.
    start : dict
        The journal's first event.
    """

    def __init__(self, folder: Path, start: dict[str, Any]) -> None:
        self.folder, self.start = folder, start
        self.uri = destination_of(start)
        self.delivery = Sender(folder, self.uri)
        self.reader = JournalReader(folder, self.delivery, Masker(os.environ))
        self._recorded: dict[str, Any] = {}

    def advance(self) -> None:
        """Deliver the events that were added to the journal.

        Raises
        ------
        OSError, ServerError, ServerRefusesError
            As `Sender.flush`.
        """
        try:
            self.reader.read()
        except ServerRefusesError as error:
            self.refused(str(error))
            raise
        finally:
            self._record_run()
        facts = self.delivery.progress.facts
        if facts.get("away") or facts.get("refused"):
            self.delivery.progress.note(away=None, refused=None)
            self.record(away=None, refused=None)

    def _record_run(self) -> None:
        """Write the run's address to ``run.json`` as soon as it is known."""
        ids, start = self.delivery.progress.ids, self.start
        if start["run"] not in ids or self._recorded.get("run_id") == ids[start["run"]]:
            return
        run = {
            "run_id": ids[start["run"]],
            "experiment_id": ids[start["experiment_token"]],
            "artifact_uri": ids[start["root"]],
        }
        # its page's address changes with the checkout's own server, but not with a server started elsewhere
        self.record(**run, local_server=start["local_server"] and server_record().get("uri") == self.uri)
        if (self.delivery.progress.facts.get("run") or {}).get("run_id") != run["run_id"]:
            self.delivery.progress.note(run=run)

    def page(self) -> str:
        """Return the address of the run's page; empty until the run is created."""
        return run_address({"uri": self.uri, **self._recorded}) if "run_id" in self._recorded else ""

    def record(self, **more: Any) -> None:
        """Write the state of the run to ``run.json``, for users and other programs.

        Parameters
        ----------
        **more
            Fields to add or change.
        """
        start = self.reader.start or self.start
        known = {
            key: start[key]
            for key in ("execution", "notebook", "executor", "experiment", "run_name", "time", "local_server", "parent")
        }
        if self.reader.names:
            known["experiment"], known["run_name"] = self.reader.names
            known["params"] = self.reader.given_params
        self._recorded |= more
        with contextlib.suppress(OSError):  # the disk is full
            write_atomically(self.folder / "run.json", to_json({"uri": self.uri, **known, **self._recorded}))

    def away(self, error: Exception) -> None:
        """Record for the waiting kernel and in ``run.json`` that the server does not answer.

        Parameters
        ----------
        error : Exception
        """
        if not self.delivery.progress.facts.get("away"):
            self.delivery.progress.note(away=str(error))
        self.record(away=str(error))

    def refused(self, why: str) -> None:
        """Record for the waiting kernel and in ``run.json`` that delivery needs a user's action first.

        Parameters
        ----------
        why : str
        """
        self.record(refused=why)
        self.delivery.progress.note(refused=why)

    def undeliverable(self, error: Exception) -> str:
        """Mark a broken execution as refused, so that the executions after it are delivered; return the reason.

        Parameters
        ----------
        error : Exception
        """
        self.refused(why := f"it cannot be delivered ({type(error).__name__}: {error})")
        return why

    def finalize(self) -> None:
        """Deliver all that is left and end the run.

        Raises
        ------
        OSError, ServerError, ServerRefusesError
            As `Sender.flush`.
        """
        reader, delivery = self.reader, self.delivery
        self.advance()
        if reader.names is None:  # the execution ended before its parameters were known
            reader.on_names(cast(events.Names, reader.start))
        dropped = read_json(self.folder / "dropped.json")
        reader.fill_in(dropped)
        ending = verdict(reader)
        for item in self._artifacts(ending):
            delivery.put(item)
            delivery.flush()
        delivery.flush()
        for child, status in reader.children.items():
            if status == "RUNNING" or (status == NOT_ENDED and self._is_open(child)):
                self._end(child, ending.status)
        delivery.flush()
        delivery.remove_doubles()
        delivery.retry_aside()
        reader.flush_deferred(self._params_there())
        delivery.put(Batch(reader.run, tags=self._tags(ending, dropped)))
        status = (reader.ended_as if ending.status == "FINISHED" else "") or ending.status
        self._end(reader.run, status)
        delivery.flush()
        self._forget_kernel()
        self._record_run()
        self.record(
            status=status, cause=ending.cause, metrics=reader.headline, cpu_seconds=round(sum(os.times()[:4]), 3)
        )
        tidy_up(self.folder)
        self.record()  # again, as a full disk now has room

    def _is_open(self, run: str) -> bool:
        """Return whether the server has a run as running, so that no client has ended it."""
        try:
            answer = self.delivery.rest.call("GET", "runs/get", run_id=self.delivery.progress.ids.get(run, run))
        except ServerError:
            return True
        return bool(answer["run"]["info"]["status"] == "RUNNING")

    def _end(self, run: str, status: str) -> None:
        end_time = self.reader.last_time or self.start["time"]
        self.delivery.put(Call("POST", "runs/update", {"run_id": run, "status": status, "end_time": end_time}))

    def _tags(self, ending: Verdict, dropped: dict[str, Any]) -> dict[str, str]:
        reader, mask = self.reader, self.reader.masker.text
        run_tags = dict(ending.tags)
        if ending.cause:
            run_tags[tags.CAUSE] = ending.cause
        by_hand = self.start["executor"] in {"jupyterlab", "vscode"}
        saved = read_json(Path(reader.start["notebook"])) if by_hand else {}
        document = saved or reader.document
        if reader.provenance.at_start.get("commit"):
            run_tags[tags.DIRTY] = str(self._code[0]).lower()
        if document.get("cells"):
            run_tags[tags.ORDER] = order(reader.cells, document["cells"])
        if failed := ending.failed:
            error = failed.error or {"ename": "", "evalue": "", "traceback": []}
            place = {
                tags.FAILED_CELL: str("" if failed.count is None else failed.count),
                tags.FAILED_SOURCE: failed.source,
            }
            run_tags = (
                ({} if reader.is_script else place)
                | {tags.ERROR: f"{error['ename']}: {error['evalue']}", tags.TRACEBACK: self._traceback(error)}
                | run_tags
            )
        if dropped.get("events"):
            run_tags[tags.DROPPED] = f"{dropped['events']} events or files, {dropped['bytes']} bytes: no space left"
        if reader.cut:
            names = ", ".join(f"{key} ({length})" for key, length in reader.cut.items())
            run_tags[tags.CUT] = (
                f"MLflow keeps {LIMIT['params']} characters of a parameter, {LIMIT['tags']} of a tag: {names}"
            )
        if aside := self.delivery.describe_aside():
            run_tags[tags.SET_ASIDE] = f"{len(aside)}: {'; '.join(aside)}"
        values = {key: storable(mask(value), LIMIT["tags"]) for key, value in run_tags.items() if value}
        description = reader.description(ending.status, ending.failed, ending.cause or run_tags.get(tags.ERROR, ""))
        return values | ({tags.DESCRIPTION: description} if description or reader.described else {})

    def _params_there(self) -> list[str]:
        """Return the parameters that the run has on the server: cells may have logged some without the journal."""
        try:
            run = self.delivery.rest.call("GET", "runs/get", run_id=self.delivery.progress.ids[self.start["run"]])
        except ServerError as error:
            if not error.permanent:
                raise
            return []
        return [param["key"] for param in run["run"]["data"].get("params", [])]

    def _forget_kernel(self) -> None:
        """Delete the tags that identify an open run's kernel; they are useless once it has ended."""
        long = self.reader.last_time - self.start["time"] > 1000 * HEARTBEAT
        for key in (tags.KERNEL, tags.SEEN) if long else (tags.KERNEL,):
            with contextlib.suppress(OSError, ServerError):  # the tags do no harm
                run = self.delivery.progress.ids[self.start["run"]]
                self.delivery.rest.call("POST", "runs/delete-tag", run_id=run, key=key)

    def _traceback(self, error: dict[str, Any]) -> str:
        """Return the end of a traceback, which is its more useful part if it is too long for a tag."""
        return self.reader.masker.text(ANSI.sub("", "\n".join(error["traceback"] or [])))[-LIMIT["tags"] :]

    @functools.cached_property
    def _code(self) -> tuple[bool, str]:
        """Whether the executed code differs from the commit, and the patch."""
        return self.reader.provenance.that_ran(self._notebook.cells, self.reader.attempts.number)

    @functools.cached_property
    def _notebook(self) -> ExecutedNotebook:
        reader = self.reader
        return ExecutedNotebook(self.folder, reader.document, reader.cells, reader.masker.json)

    def _artifacts(self, ending: Verdict) -> Iterator[File]:
        """Yield the executed notebook, its figures, the cells' records, typed parameters, patch and data manifests.

        For a script, yield its source instead of what comes from cells.
        """
        reader, root = self.reader, self.start["root"]
        texts = self._script() if reader.is_script else {"cells.json": _json(reader.masker.json(self._cells()))}
        if not reader.is_script:
            notebook, stem = self._notebook, reader.start.get("stem") or "notebook"
            yield File(root, _plain(f"{stem}.ipynb"), functools.partial(self._with_ids, notebook))
            if notebook.ran_again:
                every = notebook.in_order()
                yield File(root, _plain(f"{stem}_in_order.ipynb"), functools.partial(self._with_ids, every))
        if ending.failed and ending.failed.error:
            error = ending.failed.error
            whole = "\n".join([*(error["traceback"] or []), f"{error['ename']}: {error['evalue']}"])
            texts["traceback.txt"] = reader.masker.text(ANSI.sub("", whole)) + "\n"
        if reader.mismatches:
            texts["mismatches.txt"] = (
                reader.masker.text("\n\n".join(str(m["message"]) for m in reader.mismatches)) + "\n"
            )
        if reader.given_params:
            texts["parameters.json"] = _json(reader.given_params)
        if reader.fits:
            texts["fits.json"] = _json(reader.masker.json(reader.numbered_fits()))
        if patch := self._code[1]:
            texts["code.patch"] = patch
        if packages := reader.provenance.at_start.get("packages"):
            texts["packages.txt"] = "\n".join(packages) + "\n"
        for manifest in reader.manifests:
            texts[f"data/{manifest.get('name', 'manifest')}.json"] = _json(manifest)
        for name, text in texts.items():
            yield _bytes(root, _plain(name), self.delivery.translate_text(text).encode("utf-8", "replace"))
        for name, picture, attempt in () if reader.is_script else self._notebook.figures():
            yield _bytes(reader.attempt_ids(attempt)[1] if attempt else root, f"figures/{name}", picture)

    def _with_ids(self, notebook: ExecutedNotebook) -> Iterator[bytes]:
        """Yield the file of a notebook, with the server's ids in outputs (for example in links to runs)."""
        for chunk in notebook.chunks():
            has_ids = any(mark in chunk for mark in MARKS)
            yield self.delivery.translate_text(chunk.decode()).encode() if has_ids else chunk

    def _cells(self) -> list[dict[str, Any]]:
        """Return the records of the executed cells, in their order, with the number that the front end shows."""
        return [
            {
                "cell": cell.count,
                "id": cell.id,
                "source": cell.source,
                "seconds": cell.seconds,
                "ok": cell.ok,
                "started": cell.started,
                "ended": cell.ended,
                "error": cell.error,
            }
            for cell in self.reader.cells
        ]

    def _script(self) -> dict[str, str]:
        """Return the script's source as it was when its block began, by file name."""
        source = self.reader.cells[0].source if self.reader.cells else ""
        return {Path(self.start["notebook"]).name: self.reader.masker.text(source)} if source else {}


def deliver_aside(folder: Path) -> str:
    """Retry what was set aside of a delivered execution.

    Parameters
    ----------
    folder : Path
        The execution's folder, which the caller has locked.

    Returns
    -------
    str
        ``delivered``, or why something is left.
    """
    record = read_json(folder / "run.json")
    delivery = Sender(folder, destination_of(record))
    try:
        delivery.retry_aside()
        if not delivery.aside():
            delivery.rest.call("POST", "runs/delete-tag", run_id=record["run_id"], key=tags.SET_ASIDE)
            return "delivered"
    except (OSError, ServerError) as error:
        return f"away: {error}"
    finally:
        tidy_up(folder)
    return f"set aside: {json.loads(delivery.aside()[0])['error']}"


def tidy_up(folder: Path) -> None:
    """Delete a delivered execution's files, except its state and what was set aside.

    Parameters
    ----------
    folder : Path
        The execution's folder.
    """
    left = LEFT | ({"files"} if (folder / "aside.jsonl").is_file() else set())
    for entry in folder.iterdir():
        if entry.name not in left:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _plain(name: str) -> str:
    """Return the name of an artifact without characters that MLflow refuses or takes for an escape."""
    return re.sub(r"[#%\x00-\x1f\x7f]", "_", name)


def _bytes(root: str, name: str, content: bytes) -> File:
    return File(root, name, lambda: [content])


def _json(value: Any) -> str:
    return to_json(value, indent=1, ensure_ascii=False)
