"""What a kernel can find out about itself: which notebook it runs, which program executes it, how the run is named."""

import contextlib
import functools
import glob
import itertools
import json
import os
import re
import string
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from nbtrack import env_vars
from nbtrack.cells import (
    METADATA_KEY,
    PARAMETER_TAGS,
    cell_source,
    chosen_experiment,
    literals,
    tags_of_cell,
    wants_tracking,
)
from nbtrack.executions import executions_dir
from nbtrack.files import read_json
from nbtrack.journal import make_private, read_events
from nbtrack.provenance import user_name

INTERACTIVE = {"jupyterlab", "vscode", "kernel"}  # executors in which cells run in any order and repeatedly
VALUED = {"--output", "--output-dir", "-o", "--to", "--template", "--config"}  # options that are followed by a value
TRASH = re.compile(r".*/\.?Trash[^/]*/files/[^/]*")  # where desktops and JupyterLab put deleted files
FOR_PEOPLE = ("jupyter", "spyder")  # programs that start kernels for interactive use
LARGEST = 64 << 20  # maximum size of a notebook that is searched, in bytes
UNTRACKED = "untracked"  # as the value of `env_vars.HANDOVER`: the kernel must not be tracked


@dataclass
class Context:
    """Which program executes which notebook.

    Attributes
    ----------
    executor : str
        ``papermill``, ``nbval``, ``nbconvert``, ``jupyter-execute``, ``jupyterlab``, ``vscode`` or ``kernel``.
    notebook : Path or None
        Absolute path, if there is a notebook file.
    document : dict
        The notebook as it was on disk (or as papermill prepared it); empty if unknown.
    parameters : dict
        The parameters that papermill was given, typed.
    execution_id : str or None
        The id that papermill or pytest chose for this execution.
    driver : dict or None
        The process that will report how the execution ended.
    address : str
        Where the notebook comes from, if it is not a file on this machine.
    title : str
        The name of the execution if there is no notebook to name it after.
    top : Path or None
        The working folder of the executing program; None for that of this kernel's parent.
    """

    executor: str
    notebook: Path | None = None
    document: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    execution_id: str | None = None
    driver: dict[str, Any] | None = None
    address: str = ""
    title: str = ""
    top: Path | None = None
    _followed: "FollowedFile | None" = None
    _placed: tuple[Path | None, str] = (None, "")

    @property
    def stem(self) -> str:
        """The notebook's name without folders and suffix; empty if unknown."""
        return self.notebook.stem if self.notebook else PurePosixPath(self.address).stem or self.title

    @property
    def place(self) -> str:
        """The notebook's name with its folders, which distinguish it from others of the same name.

        These are the folders below the top of its git checkout, else below the folder of the program that executes it.
        """
        if self.notebook is None:
            return self.stem
        if self._placed[0] != self.notebook:  # looked up once, so that the name stays the same for a notebook
            folder = self.notebook.parent
            checkout = next((one for one in (folder, *folder.parents) if (one / ".git").exists()), None)
            top = checkout or self.top or _parent_folder()
            below = folder.relative_to(top) if top and folder.is_relative_to(top) else Path()
            hidden = any(part.startswith(".") for part in below.parts)
            self._placed = self.notebook, self.stem if hidden else (below / self.stem).as_posix()
        return self._placed[1]

    @property
    def metadata(self) -> dict[str, Any]:
        """The notebook's own ``pokebattle`` metadata."""
        settings = self.document.get("metadata", {}).get(METADATA_KEY, {})
        return settings if isinstance(settings, dict) else {}

    @property
    def tracked(self) -> bool:
        """Whether the notebook may be tracked: its metadata do not set ``pokebattle.track`` to false."""
        return wants_tracking(self.document)

    def opening(self, names: tuple[str, str]) -> dict[str, Any]:
        """Return the context's fields for a journal's first event.

        Parameters
        ----------
        names : tuple of (str, str)
            Experiment and run name.
        """
        return {
            "notebook": str(self.notebook or self.address),
            "stem": self.stem,
            "executor": self.executor,
            "cwd": str(Path.cwd()),
            "user": user_name(),
            "experiment": names[0],
            "run_name": names[1],
            "driver": self.driver,
            "parent_execution": os.environ.get(env_vars.PARENT),
            "experiment_id": os.environ.get(env_vars.EXPERIMENT_ID, ""),
        }

    def follow(self, cell_id: str | None) -> bool:
        """Update the notebook's path if it was renamed or moved since the last cell; return whether it was.

        JupyterLab's server names the notebook only when the kernel starts; VS Code names it with every cell.

        Parameters
        ----------
        cell_id : str or None
            The id that the client sent with the cell.
        """
        now = self.notebook
        if self.executor == "vscode":
            now = _from_uri(cell_id) or now
        elif self.executor == "jupyterlab" and self.notebook:
            self._followed = self._followed or FollowedFile(self.notebook)
            now = self._followed.now()
        if now == self.notebook:
            return False
        self.notebook = now
        self.document = (read_json(now) if now else {}) or self.document
        return True

    def parameter_cells(self) -> list[dict[str, Any]]:
        """Return the cells tagged ``parameters`` or ``injected-parameters``."""
        return [cell for cell in self.document.get("cells", []) if PARAMETER_TAGS & tags_of_cell(cell)]

    def names(self, namespace: dict[str, Any]) -> tuple[str, str]:
        """Return experiment and run name, with the placeholders of their templates filled in.

        The experiment in mlflow's own environment variable, or in the notebook's ``mlflow.set_experiment``, takes
        precedence over the template. A placeholder's value comes from papermill, else from the namespace, else from the
        parameters cell.

        Parameters
        ----------
        namespace : dict
            The kernel's variables.

        Returns
        -------
        experiment : str
        run_name : str
        """
        stem = self.stem or "notebooks"
        templates = (
            "notebook-tests" if self.executor == "nbval" else str(self.metadata.get("experiment", _literal(stem))),
            str(self.metadata.get("run_name", _literal(self.place or stem))),
        )
        defaults: dict[str, Any] = {}
        for cell in self.parameter_cells():
            defaults.update(literals(cell_source(cell)))

        def fill(template: str) -> str:
            try:
                wanted = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            except ValueError:
                return template
            values = dict.fromkeys(wanted, "unknown")
            for source in (defaults, namespace, self.parameters):
                values.update({name: source[name] for name in wanted if name in source})
            return "".join(
                text + (str(values[name]) if name else "") for text, name, _, _ in string.Formatter().parse(template)
            )

        return self._chosen or fill(templates[0]) or stem, fill(templates[1]) or stem

    @functools.cached_property
    def _chosen(self) -> str | None:
        """The experiment that mlflow's environment variable or the notebook names when the execution begins."""
        values: dict[str, Any] = {}
        for cell in self.parameter_cells():
            values.update(literals(cell_source(cell)))
        return os.environ.get(env_vars.EXPERIMENT_NAME) or chosen_experiment(self.document, values | self.parameters)


def _literal(text: str) -> str:
    """Return the template that yields exactly this text."""
    return text.replace("{", "{{").replace("}", "}}")


def _parent_folder() -> Path | None:
    """Return the working folder of the program that started this kernel."""
    import psutil

    try:
        return Path(psutil.Process(parent_pid()).cwd())
    except (psutil.Error, ValueError):
        return None


def handed_over() -> Context | None:
    """Return the context that papermill's engine or pytest's plugin wrote for this kernel; None without such a file."""
    handover = os.environ.pop(env_vars.HANDOVER, None)  # removed, as kernels that this one starts must not read it
    if not handover:
        return None
    if handover == UNTRACKED:
        return Context("kernel", document={"metadata": {METADATA_KEY: {"track": False}}})
    content = read_json(Path(handover))
    with contextlib.suppress(OSError):
        Path(handover).unlink()
    if not content:
        return None
    notebook = Path(content["notebook"]) if content.get("notebook") else None
    return Context(
        content["executor"],
        notebook,
        content["document"],
        content["parameters"],
        content["execution"],
        content["driver"],
        content.get("address", ""),
        content.get("title", ""),
    )


def detect(first: str, cell_id: str | None = None, namespace: dict[str, Any] | None = None) -> Context:
    """Find out which program started this kernel, and for which notebook.

    Parameters
    ----------
    first : str
        The text of the cell that runs first.
    cell_id : str, optional
        The id that the client sent with it.
    namespace : dict, optional
        The kernel's variables.

    Returns
    -------
    Context
    """
    if notebook := _from_uri(cell_id) or _from_namespace(namespace or {}):
        return Context("vscode", notebook, read_json(notebook))
    if context := _from_parent(first):
        return context
    if session := _session():
        path = Path(unquote(session))
        shared = Path(unquote(session).replace("/RTC:", "/"))  # the drive prefix of jupyter-collaboration's documents
        path = shared if shared.is_file() else path
        if path.suffix == ".ipynb":
            return Context("jupyterlab", path, read_json(path))
        return Context("kernel")
    return _from_program(first) or Context("kernel")


def _session() -> str:
    """Return the session name that Jupyter's server gave this kernel; empty if the kernel only inherited it."""
    import psutil

    session = os.environ.get("JPY_SESSION_NAME", "")
    with contextlib.suppress(psutil.Error, ValueError):
        if session and psutil.Process(parent_pid()).environ().get("JPY_SESSION_NAME") == session:
            return ""
    return session


def _from_uri(cell_id: str | None) -> Path | None:
    """Return the notebook in a cell id of VS Code's; an unsaved notebook counts as one in the current folder."""
    if not cell_id or not cell_id.startswith("vscode-notebook-cell:"):
        return None
    path = Path.cwd() / unquote(urlsplit(cell_id).path)
    return path if path.suffix == ".ipynb" else None


def _from_namespace(namespace: dict[str, Any]) -> Path | None:
    """Return the notebook that VS Code stored in a variable when it started the kernel."""
    named = namespace.get("__vsc_ipynb_file__")
    return Path(named) if isinstance(named, str) and named.endswith(".ipynb") else None


class FollowedFile:
    """A file whose path stays known when it is renamed or moved, as far as the operating system allows it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._open()

    def _open(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        try:
            self._file = os.open(self.path, getattr(os, "O_PATH", os.O_RDONLY))
        except OSError:
            self._file = -1
        self._known = self._place()

    def _place(self) -> Path | None:
        """Return the open file's current path."""
        with contextlib.suppress(OSError):
            if self._file >= 0:
                return Path(f"/proc/self/fd/{self._file}").readlink()
        return None

    def now(self) -> Path:
        """Return the file's current path; its previous path if the file was deleted or replaced by another one."""
        place = self._place()
        if place != self._known or place is None:
            moved = place and place.suffix == ".ipynb" and not TRASH.fullmatch(str(place))
            if place and moved and not self.path.exists():
                self.path, self._known = place, place
            else:
                self._open()
        return self.path


def write_handover(folder: Path, **context: Any) -> str:
    """Write a file for a kernel with its notebook and execution; return the file's path.

    Parameters
    ----------
    folder : Path
        The execution's folder in the spool; created if missing.
    **context
        What `handed_over` reads.
    """
    make_private(folder)
    file = folder / "handover.json"
    file.write_text(json.dumps(context, default=str), encoding="utf-8")
    return str(file)


def parent_pid() -> int:
    """Return the process id of the program that started this kernel."""
    return int(os.environ.get("JPY_PARENT_PID") or os.getppid())


def _from_parent(first: str) -> Context | None:
    """Return the context according to the command line of the process that started the kernel."""
    import psutil  # a dependency of ipykernel

    try:
        parent = psutil.Process(parent_pid())
        command, folder = parent.cmdline(), Path(parent.cwd())
    except (psutil.Error, ValueError):
        return None
    words = {Path(word).name for word in command[:4]}
    for executor, programs in {
        "nbconvert": {"jupyter-nbconvert", "nbconvert"},
        "jupyter-execute": {"jupyter-execute", "execute"},
        "papermill": {"papermill"},
    }.items():
        if words & programs:
            return _chosen(executor, _named(command, folder), first, parent.pid, parent.create_time())
    return None


def _from_program(first: str) -> Context | None:
    """Find the notebook that a user's own program executes, for example with nbclient or jupyter-scheduler.

    It is the notebook with the executed first cell, searched for first on the program's command line, then in the
    kernel's folder, then in the program's. If no notebook or several match, the program gives the name.
    """
    import psutil

    try:
        parent = psutil.Process(parent_pid())
        command, folder = parent.cmdline(), Path(parent.cwd())
    except (psutil.Error, ValueError):
        return None
    programs = [Path(word).name for word in command[:4]]
    if not programs or not programs[0].startswith("python") or any(name.startswith(FOR_PEOPLE) for name in programs):
        return None
    in_folder = sorted(Path.cwd().glob("*.ipynb"))
    for named in (_named(command, folder), in_folder, sorted(folder.glob("*.ipynb"))):
        documents = {path: read_json(path) for path in named if _mentions(path, first)}
        alike = [path for path, document in documents.items() if _first_source(document) == first.strip()]
        if off := [path for path in alike if not wants_tracking(documents[path])]:
            return Context("kernel", off[0], documents[off[0]])
        if len(alike) == 1:
            return Context("kernel", alike[0], documents[alike[0]])
    if len(in_folder) == 1 and Path.cwd() != folder:  # a folder made for this execution; the first cell was injected
        return Context("kernel", in_folder[0], read_json(in_folder[0]))
    script = command[1] if len(command) > 1 and command[1].endswith(".py") else ""
    return Context("kernel", title=Path(script).stem)


def _mentions(path: Path, text: str) -> bool:
    """Return whether a file may contain a text, without parsing it as a notebook."""
    line = json.dumps(text.strip().partition("\n")[0], ensure_ascii=False)[1:-1]
    try:
        return path.stat().st_size < LARGEST and line.encode() in path.read_bytes()
    except OSError:
        return False


def _named(command: list[str], folder: Path) -> list[Path]:
    """Return the notebooks on a command line, also if they are named without suffix or by a pattern."""
    words = [word for before, word in itertools.pairwise(command) if word[:1] != "-" and before not in VALUED]
    paths = [
        folder / name
        for word in words
        for pattern in (word, f"{word}.ipynb")
        for name in sorted(glob.glob(pattern, root_dir=folder)) or [word]  # noqa: PTH207 - it may be absolute
        if name.endswith(".ipynb")
    ]
    return list(dict.fromkeys(paths))


def _chosen(executor: str, named: list[Path], first: str, parent: int, since: float) -> Context:
    """Return the context of the named notebook whose first cell runs, in the folder where it runs.

    If several match, it is the first one that the program ``parent`` has not executed yet. Untracked notebooks leave no
    record of having been executed; if one of them matches, nothing is tracked.
    """
    if executor == "papermill":  # the second one is its output
        named = named[:1]
    in_folder = [path for path in named if path.parent.resolve() == Path.cwd()] or named
    documents = {path: read_json(path) for path in in_folder}
    alike = [path for path in in_folder if _first_source(documents[path]) == first.strip()] or in_folder
    if len(alike) > 1:
        if off := [path for path in alike if not wants_tracking(documents[path])]:
            return Context(executor, off[0], documents[off[0]])
        done = _executed_by(parent, since)
        alike = [path for path in alike if str(path) not in done] or alike
    path = next(iter(alike), None)
    return Context(executor, path, documents[path] if path else {})


def _first_source(document: dict[str, Any]) -> str:
    """Return the text of the cell of a notebook that runs first."""
    sources = (cell_source(cell).strip() for cell in document.get("cells", []) if cell.get("cell_type") == "code")
    return next(filter(None, sources), "")


def _executed_by(parent: int, since: float) -> set[str]:
    """Return the notebooks that a program, started at ``since``, has already begun to execute."""
    oldest, executed = time.strftime("%Y%m%d-%H%M%S", time.localtime(since)), set()
    for folder in executions_dir().glob("2*"):
        if folder.name >= oldest:
            start = next((event for _, _, event in read_events(folder)), None) or read_json(folder / "run.json")
            if (start.get("parent") or {}).get("pid") == parent:
                executed.add(str(start["notebook"]))
    return executed
