"""Sequences of calls of MLflow, spread over cells, as Hypothesis builds and shrinks them.

A call is a line of Python with places: ``{run}`` is the id of a run that the sequence has started, ``{exp}`` the name
of an experiment. Places that refer to earlier results count backwards and are resolved when a sequence is written out,
so that a sequence stays whole when calls are taken out of it.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from textwrap import indent
from typing import Any

from hypothesis import strategies as st

TAG = "TAGTAG"  # in every name: what distinguishes one execution of a sequence from another
NOWHERE = {
    "run": '"0123456789abcdef0123456789abcdef"',
    "logged": '"m-0123456789abcdef0123456789abcdef"',
    "expid": '"12345678"',
    "fit": "LinearRegression().fit([[0], [1]], [0, 1])",
}
SUFFIX = {"run": ".info.run_id", "logged": ".model_id", "expid": ".experiment_id", "fit": "", "version": ".version"}
PREAMBLE = """\
import json, os, threading, mlflow, numpy as np, pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from sklearn.linear_model import LinearRegression
client = MlflowClient()
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [1] * len(model_input)
frame = pd.DataFrame({"x": [1, 2, 3], "y": [2, 4, 6]})"""


@dataclass(frozen=True)
class Op:
    """One call, block, loop or set of threads.

    Attributes
    ----------
    text : str
        The template of its line.
    places : tuple
        ``(place, value)`` in the order of the template.
    binds : str
        What kind of thing its result is for later calls, empty when none.
    body : tuple of Op
        Of a block.
    """

    text: str
    places: tuple[tuple[str, Any], ...] = ()
    binds: str = ""
    body: tuple["Op", ...] = ()


@dataclass(frozen=True)
class Sequence:
    """Cells of calls, and with what the kernel starts.

    Attributes
    ----------
    cells : tuple of tuple of Op
    env : tuple of (str, str)
        Variables of the notebook's environment; a value ``RUN`` is a run of the program that starts it.
    apart : bool
        Whether imports are a cell of their own.
    closes : bool
        Whether the last cell ends all runs.
    """

    cells: tuple[tuple[Op, ...], ...]
    env: tuple[tuple[str, str], ...] = ()
    apart: bool = False
    closes: bool = True


# -- places ----------------------------------------------------------------------------------------

REFERENCE = st.integers(0, 3)
PLACES: dict[str, st.SearchStrategy[Any]] = {
    "run": REFERENCE,
    "logged": REFERENCE,
    "expid": REFERENCE,
    "fit": REFERENCE,
    "exp": st.sampled_from([f"exp-{TAG}-a", f"exp-{TAG}-b"]),
    "model": st.sampled_from([f"mod-{TAG}-a", f"mod-{TAG}-b"]),
    "key": st.sampled_from(["a", "b", "a/b c", "loss"]),
    "badkey": st.sampled_from(["a", "", "a@b", "x" * 251, "../up", "ü"]),
    "number": st.sampled_from(["1", "0.5", "-2", "1e300", "3"]),
    "badnumber": st.sampled_from(["float('nan')", "float('inf')", "'seven'", "None", "True", "np.float32(0.5)"]),
    "step": st.sampled_from(["0", "1", "2", "-1"]),
    "text": st.sampled_from(["'one'", "'two'", "''", "'ein längerer Wert'", "7", "None", "'x' * 600"]),
    "long": st.sampled_from(["'x' * 6001", "'x' * 8001", "'x' * 5000"]),
    "status": st.sampled_from(["'FINISHED'", "'FAILED'", "'KILLED'", "'RUNNING'", "'SCHEDULED'"]),
    "badstatus": st.sampled_from(["'FINISHED'", "'FAILED'", "'DONE'"]),
    "name": st.sampled_from(["'first'", "'second'", "'third'"]),
    "version": st.sampled_from(["'1'", "'2'", "1", "'3'"]),
    "alias": st.sampled_from(["'best'", "'next'"]),
    "stage": st.sampled_from(["'Staging'", "'Production'", "'Archived'", "'None'", "'Nowhere'"]),
    "yes": st.sampled_from(["True", "False"]),
    "view": st.sampled_from(["ViewType.ACTIVE_ONLY", "ViewType.DELETED_ONLY", "ViewType.ALL"]),
    "file": st.sampled_from(["'note.txt'", "'deep/er/note.txt'", "'data.json'", "'note'"]),
    "flavour": st.sampled_from(["sklearn", "xgboost", "pyfunc"]),
    "uri": st.sampled_from(["1", "2", "latest", "@best", "Production"]),
}
SEARCH = "filter_string=\"tags.mlflow.source.name LIKE '%" + TAG + "%'\""

# -- calls: weight, template, what its result is -----------------------------------------------------

CALLS: list[tuple[int, str, str]] = [
    # runs
    (9, "mlflow.start_run()", "run"),
    (4, "mlflow.start_run(run_name={name})", "run"),
    (5, "mlflow.start_run(nested=True)", "run"),
    (2, "mlflow.start_run(run_name={name}, nested=True, tags={{'a': {text}}}, description='about')", "run"),
    (4, "mlflow.start_run(run_id={run})", "run"),
    (2, "mlflow.start_run(run_id={run}, nested=True)", "run"),
    (2, "mlflow.start_run(parent_run_id={run})", "run"),
    (2, "mlflow.start_run(nested=True, parent_run_id={run})", "run"),
    (2, "mlflow.start_run(experiment_id={expid})", "run"),
    (10, "mlflow.end_run()", ""),
    (3, "mlflow.end_run({badstatus})", ""),
    (9, "mlflow.active_run()", ""),
    (4, "mlflow.last_active_run()", ""),
    (3, "mlflow.get_run({run})", ""),
    (2, "mlflow.get_parent_run({run})", ""),
    (2, "mlflow.delete_run({run})", ""),
    (1, "client.restore_run({run})", ""),
    (2, "client.set_terminated({run}, {status})", ""),
    (2, "client.update_run({run}, {status}, {name})", ""),
    (2, "client.create_run({expid}, run_name={name}, tags={{'a': 'one'}})", "run"),
    (1, "client.create_run({expid})", "run"),
    # what is logged
    (6, "mlflow.log_param({key!r}, {text})", ""),
    (2, "mlflow.log_param({badkey!r}, {long})", ""),
    (4, "mlflow.log_params({{'a': {text}, 'c': {number}}})", ""),
    (6, "mlflow.log_metric({key!r}, {number})", ""),
    (4, "mlflow.log_metric({key!r}, {number}, step={step})", ""),
    (2, "mlflow.log_metric({badkey!r}, {badnumber})", ""),
    (1, "mlflow.log_metric({key!r}, {number}, timestamp=1600000000000)", ""),
    (1, "mlflow.log_metric({key!r}, {number}, run_id={run})", ""),
    (4, "mlflow.log_metrics({{'a': {number}, 'loss': {number}}}, step={step})", ""),
    (1, "mlflow.log_metric({key!r}, {number}, synchronous=False).wait()", ""),
    (4, "mlflow.set_tag({key!r}, {text})", ""),
    (2, "mlflow.set_tags({{'a': {text}, 'mlflow.note.content': {text}}})", ""),
    (1, "mlflow.set_tag({badkey!r}, {long})", ""),
    (2, "mlflow.delete_tag({key!r})", ""),
    (3, "mlflow.log_text({text}, {file})", ""),
    (2, "mlflow.log_dict({{'a': {number}}}, {file})", ""),
    (1, "mlflow.log_figure(__import__('matplotlib.figure').figure.Figure(figsize=(1, 1)), 'figure.png')", ""),
    (1, "mlflow.log_image(np.zeros((2, 2, 3), dtype='uint8'), 'image.png')", ""),
    (1, "mlflow.log_image(np.zeros((2, 2, 3), dtype='uint8'), key='image', step={step}, synchronous=True)", ""),
    (2, "mlflow.log_table({{'x': [{number}], 'y': ['one']}}, 'table.json')", ""),
    (2, "mlflow.load_table('table.json', run_ids=[{run}])", ""),  # without ids, other sequences' runs in Default count
    (2, "mlflow.log_artifact('here.txt')", ""),
    (1, "mlflow.log_artifact('here.txt', 'deep')", ""),
    (1, "mlflow.log_artifact('missing.txt')", ""),
    (1, "mlflow.log_artifacts('folder', 'sub')", ""),
    (1, "mlflow.log_artifacts('folder')", ""),
    (
        2,
        "mlflow.log_input(mlflow.data.from_pandas(frame, name='frame-" + TAG + "', targets='y'), context='training')",
        "",
    ),
    (1, "mlflow.get_artifact_uri()", ""),
    (1, "mlflow.get_artifact_uri({file})", ""),
    (2, "mlflow.artifacts.list_artifacts(run_id={run})", ""),
    (2, "mlflow.artifacts.load_text(f'runs:/{{{run}}}/' + {file})", ""),
    (1, "mlflow.artifacts.load_dict(f'runs:/{{{run}}}/data.json')", ""),
    (1, "open(mlflow.artifacts.download_artifacts(run_id={run}, artifact_path={file})).read()", ""),
    (1, "client.log_batch({run}, [Metric('a', {number}, 5, {step})], [Param('b', 'one')], [RunTag('t', 'u')])", ""),
    (1, "client.log_metric({run}, {key!r}, {number}, step={step})", ""),
    (2, "client.log_param({run}, {key!r}, {text})", ""),
    (1, "client.set_tag({run}, {key!r}, {text})", ""),
    (1, "client.delete_tag({run}, {key!r})", ""),
    (1, "client.log_text({run}, {text}, {file})", ""),
    (1, "client.log_dict({run}, {{'a': {number}}}, {file})", ""),
    (3, "client.get_run({run})", ""),
    (3, "client.get_metric_history({run}, {key!r})", ""),
    (2, "client.list_artifacts({run})", ""),
    (1, "client.list_artifacts({run}, 'deep')", ""),
    # searches
    (4, "mlflow.search_runs(" + SEARCH + ")", ""),
    (2, "mlflow.search_runs(" + SEARCH + ", output_format='list', order_by=['metrics.a DESC', 'start_time'])", ""),
    (2, "mlflow.search_runs(experiment_names=[{exp!r}])", ""),
    (1, "mlflow.search_runs(experiment_names=[{exp!r}], filter_string='metrics.a >= 1', order_by=['params.a'])", ""),
    (1, "mlflow.search_runs(experiment_ids=[{expid}], run_view_type={view}, output_format='list')", ""),
    (1, "client.search_runs([{expid}], \"params.a = 'one'\")", ""),
    (1, "client.search_runs([{expid}], 'attributes.status = \\'FINISHED\\'', max_results=2)", ""),
    (1, "client.search_runs([{expid}], 'nonsense')", ""),
    (
        2,
        "mlflow.search_experiments(filter_string=\"name LIKE '%" + TAG + "%'\", view_type={view}, order_by=['name'])",
        "",
    ),
    # experiments
    (6, "mlflow.set_experiment({exp!r})", "expid"),
    (2, "mlflow.set_experiment(experiment_id={expid})", "expid"),
    (2, "mlflow.create_experiment({exp!r}, tags={{'a': 'one'}})", ""),
    (4, "mlflow.get_experiment_by_name({exp!r})", "expid"),
    (1, "mlflow.get_experiment_by_name('Default')", ""),
    (2, "mlflow.get_experiment({expid})", ""),
    (1, "mlflow.set_experiment_tag({key!r}, {text})", ""),
    (1, "mlflow.set_experiment_tags({{'a': 'one', 'b': {text}}})", ""),
    (1, "client.set_experiment_tag({expid}, {key!r}, {text})", ""),
    (1, "client.delete_experiment_tag({expid}, {key!r})", ""),
    (2, "mlflow.delete_experiment({expid})", ""),
    (1, "client.restore_experiment({expid})", ""),
    (1, "client.rename_experiment({expid}, {exp!r})", ""),
    # models
    (3, "LinearRegression().fit([[0], [1], [2]], [0, 1, {number}])", "fit"),
    (
        4,
        "mlflow.sklearn.log_model({fit}, name='m', pip_requirements=['scikit-learn'], serialization_format='pickle')",
        "logged",
    ),
    (
        2,
        "mlflow.sklearn.log_model({fit}, name='m', pip_requirements=['scikit-learn'], serialization_format='pickle', "
        "registered_model_name={model!r})",
        "logged",
    ),
    (1, "mlflow.pyfunc.log_model(name='echo', python_model=Echo(), pip_requirements=['mlflow'])", "logged"),
    (
        1,
        "mlflow.xgboost.log_model(__import__('xgboost').XGBRegressor(n_estimators=1, n_jobs=1).fit([[0], [1]], [0, 1]),"
        " name='trees', pip_requirements=['xgboost'], registered_model_name={model!r})",
        "logged",
    ),
    (2, "mlflow.sklearn.load_model(f'models:/{{{logged}}}').predict([[3]])", ""),
    (1, "mlflow.pyfunc.load_model(f'runs:/{{{run}}}/m').predict([[3]])", ""),
    (2, "mlflow.pyfunc.load_model('models:/' + {model!r} + '/1').predict([[3]])", ""),
    (1, "mlflow.pyfunc.load_model('models:/' + {model!r} + '/latest').predict([[3]])", ""),
    (1, "mlflow.pyfunc.load_model('models:/' + {model!r} + '@best').predict([[3]])", ""),
    (2, "mlflow.last_logged_model()", ""),
    (2, "mlflow.get_logged_model({logged})", ""),
    (1, "mlflow.search_logged_models(experiment_ids=[{expid}], output_format='list')", ""),
    (1, "mlflow.initialize_logged_model(name='made', params={{'p': '1'}})", "logged"),
    (1, "mlflow.create_external_model(name='outside', params={{'p': '1'}}, tags={{'a': 'one'}})", "logged"),
    (1, "mlflow.finalize_logged_model({logged}, 'READY')", ""),
    (1, "mlflow.set_logged_model_tags({logged}, {{'a': {text}}})", ""),
    (1, "mlflow.delete_logged_model_tag({logged}, 'a')", ""),
    (1, "mlflow.log_model_params({{'q': '2'}}, model_id={logged})", ""),
    (1, "mlflow.delete_logged_model({logged})", ""),
    (1, "mlflow.log_metric('a', {number}, model_id={logged})", ""),
    (1, "mlflow.set_active_model(name='agent-" + TAG + "')", ""),
    (1, "mlflow.get_active_model_id()", ""),
    # registry
    (3, "mlflow.register_model(f'models:/{{{logged}}}', {model!r})", ""),
    (1, "mlflow.register_model(f'runs:/{{{run}}}/m', {model!r}, tags={{'a': 'one'}})", ""),
    (3, "client.create_registered_model({model!r}, tags={{'a': 'one'}}, description='about')", ""),
    (2, "client.create_model_version({model!r}, 'models:/somewhere', run_id={run}, tags={{'a': 'one'}})", ""),
    (1, "client.create_model_version({model!r}, f'models:/{{{logged}}}')", ""),
    (2, "client.get_registered_model({model!r})", ""),
    (2, "client.get_model_version({model!r}, {version})", ""),
    (1, "client.get_latest_versions({model!r})", ""),
    (1, "client.get_model_version_download_uri({model!r}, {version})", ""),
    (2, "client.search_registered_models(\"name LIKE '%" + TAG + "%'\")", ""),
    (2, 'client.search_model_versions("name = \'" + {model!r} + "\'")', ""),
    (1, "mlflow.search_registered_models(filter_string=\"name LIKE '%" + TAG + "%'\", order_by=['name DESC'])", ""),
    (
        1,
        "mlflow.search_model_versions(filter_string=\"name LIKE '%" + TAG + "%'\", order_by=['version_number ASC'])",
        "",
    ),
    (1, "client.update_registered_model({model!r}, {text})", ""),
    (1, "client.rename_registered_model({model!r}, {model!r})", ""),
    (1, "client.delete_registered_model({model!r})", ""),
    (1, "client.set_registered_model_tag({model!r}, {key!r}, {text})", ""),
    (1, "client.delete_registered_model_tag({model!r}, {key!r})", ""),
    (1, "client.update_model_version({model!r}, {version}, {text})", ""),
    (2, "client.transition_model_version_stage({model!r}, {version}, {stage}, archive_existing_versions={yes})", ""),
    (2, "client.set_registered_model_alias({model!r}, {alias}, {version})", ""),
    (1, "client.delete_registered_model_alias({model!r}, {alias})", ""),
    (2, "client.get_model_version_by_alias({model!r}, {alias})", ""),
    (1, "client.set_model_version_tag({model!r}, {version}, {key!r}, {text})", ""),
    (1, "client.delete_model_version_tag({model!r}, {version}, {key!r})", ""),
    (1, "client.delete_model_version({model!r}, {version})", ""),
    # the process
    (2, "os.environ.__setitem__('MLFLOW_RUN_ID', {run})", ""),
    (1, "os.environ.pop('MLFLOW_RUN_ID', None) is None", ""),
    (2, "os.environ.__setitem__('MLFLOW_EXPERIMENT_NAME', {exp!r})", ""),
    (1, "os.environ.__setitem__('MLFLOW_EXPERIMENT_ID', {expid})", ""),
    (1, "os.environ.pop('MLFLOW_EXPERIMENT_NAME', None)", ""),
    (1, "os.environ.__setitem__('MLFLOW_RUN_NAME', {name})", ""),
    (2, "mlflow.set_tracking_uri('sqlite:///side.db')", ""),
    (3, "mlflow.set_tracking_uri(os.environ['SERVER'])", ""),
    (1, "mlflow.get_tracking_uri()", ""),
    (2, "mlflow.sklearn.autolog(log_models=False, log_post_training_metrics=False)", ""),
    (1, "mlflow.xgboost.autolog(log_models=False, importance_types=[])", ""),
    (1, "mlflow.autolog(disable=True)", ""),
    (
        1,
        "__import__('xgboost').train({{'nthread': 1}}, __import__('xgboost').DMatrix([[0], [1]], [0, 1]), 2)"
        ".num_boosted_rounds()",
        "",
    ),
    (1, "mlflow.flush_async_logging()", ""),
]

BLOCKS: list[tuple[int, str]] = [
    (6, "with mlflow.start_run() as {it}:"),
    (3, "with mlflow.start_run(run_name={name}) as {it}:"),
    (5, "with mlflow.start_run(nested=True) as {it}:"),
    (2, "with mlflow.start_run(run_id={run}) as {it}:"),
    (2, "with mlflow.start_run(nested=True, parent_run_id={run}) as {it}:"),
    (2, "for turn in ('t1', 't2'):"),
    (2, "threads one by one"),
]
AT_ONCE = (  # calls of threads that do not disturb each other's
    "mlflow.log_",
    "mlflow.set_tag",
    "mlflow.delete_tag",
    "mlflow.start_run",
    "mlflow.end_run",
    "mlflow.active_run",
    "mlflow.get_artifact_uri",
    "with mlflow.start_run",
)
RAISES = Op("[][1]")
CLOSING = Op("sum(1 for _ in range(9) if mlflow.active_run() and not mlflow.end_run())")


def _places(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template.replace("{{{", "{")) if name and name != "it"]


def _op(template: str, binds: str, body: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Op]:
    names = _places(template)
    values = st.tuples(*(PLACES[name] for name in names))
    return st.builds(
        lambda values, body: Op(template, tuple(zip(names, values, strict=True)), binds, tuple(body)),
        values,
        body if body is not None else st.just(()),
    )


def _weighted(choices: list[tuple[int, st.SearchStrategy[Op]]]) -> st.SearchStrategy[Op]:
    spread = [number for number, (weight, _) in enumerate(choices) for _ in range(weight)]
    return st.sampled_from(spread).flatmap(lambda number: choices[number][1])


CALL = _weighted([(weight, _op(template, binds)) for weight, template, binds in CALLS])


def _blocks(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
    body = st.lists(inner, min_size=1, max_size=4).flatmap(lambda ops: st.sampled_from([ops] * 5 + [[*ops, RAISES]]))
    return _weighted([(weight, _op(template, "", body)) for weight, template in BLOCKS])


def _apart(templates: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return the calls that two threads can make at the same time without a race between them."""
    shared = ("{run}", "{logged}")  # of the same parameter of a run or model, only the first thread's value is accepted
    apart = [entry for entry in templates if entry[1].startswith(AT_ONCE) and not any(p in entry[1] for p in shared)]
    return [entry for entry in apart if "log_input" not in entry[1]]  # of the same dataset MLflow keeps only one


LEAF = _blocks(CALL)
LONE_CALL = _weighted([(weight, _op(template, binds)) for weight, template, binds in _apart(CALLS)])
LONE = _weighted(
    [
        (3, LONE_CALL),
        (
            2,
            _weighted(
                [
                    (weight, _op(template, "", st.lists(LONE_CALL, min_size=1, max_size=3)))
                    for weight, template in _apart(BLOCKS)
                ]
            ),
        ),
    ]
)
THREADS = _op("threads at once", "", st.lists(LONE, min_size=1, max_size=4))
ANY = _weighted([(30, CALL), (6, _blocks(_weighted([(4, CALL), (1, LEAF)]))), (1, THREADS)])
ENV = st.sampled_from(
    [()] * 14
    + [(("MLFLOW_RUN_ID", "RUN"),), (("MLFLOW_EXPERIMENT_NAME", f"exp-{TAG}-a"),), (("MLFLOW_RUN_NAME", "given"),)]
)


def _comparable(cells: tuple[tuple[Op, ...], ...], env: tuple[tuple[str, str], ...], *more: bool) -> Sequence:
    """Return a sequence without what differs on purpose, or by chance, because a variable names the experiment.

    The notebook's run is in the experiment that the variable named when the notebook started, also if a cell removes
    the variable. Two threads that create the experiment at the same time may collide.
    """
    whole = Sequence(cells, env, *more)
    if "MLFLOW_EXPERIMENT_NAME" not in repr(whole):
        return whole
    named = any(name == "MLFLOW_EXPERIMENT_NAME" for name, _ in env)
    return replace(whole, cells=tuple(tuple(_mild(op, named) for op in cell) for cell in cells))


def _mild(op: Op, named: bool) -> Op:
    text = "threads one by one" if op.text == "threads at once" else op.text
    if named:
        text = text.replace("os.environ.pop('MLFLOW_EXPERIMENT_NAME', None)", "os.environ['MLFLOW_EXPERIMENT_NAME']")
    return replace(op, text=text, body=tuple(_mild(one, named) for one in op.body))


def sequences(calls: int = 6, cells: int = 4) -> st.SearchStrategy[Sequence]:
    """Return the strategy: up to so many calls a cell, and cells."""
    cell = st.lists(ANY, min_size=1, max_size=calls).map(tuple)
    return st.builds(
        _comparable,
        st.lists(cell, min_size=1, max_size=cells).map(tuple),
        ENV,
        st.booleans(),
        st.sampled_from([True, True, False]),
    )


# -- written out -----------------------------------------------------------------------------------


@dataclass
class _Writer:
    recorded: bool
    names: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0
    calls: dict[int, str] = field(default_factory=dict)

    def cell(self, ops: tuple[Op, ...], turn: str = "") -> str:
        return "\n".join(self.op(op, turn) for op in ops)

    def op(self, op: Op, turn: str) -> str:
        self.count += 1
        number, it = self.count, f"r{self.count}"
        head = f"with step({number}{turn and ', turn'})"
        line = self._fill(op, it)
        self.calls[number] = op.text
        if op.body:
            return self._block(op, line, number, it, head, turn)
        bound = f"{it} = " if op.binds else ""
        if op.binds:
            self.names.setdefault(op.binds, []).append(it)
        if not self.recorded:
            return f"{bound}{line}"
        return f"{head} as s{number}:\n    {bound}s{number}.value = {line}"

    def _block(self, op: Op, line: str, number: int, it: str, head: str, turn: str) -> str:
        loops = not line.startswith("with")
        if not loops:
            self.names.setdefault("run", []).append(it)
        before = {kind: list(names) for kind, names in self.names.items()}
        body = indent(self.cell(op.body, "turn" if loops else turn), "    ")
        if loops:  # names of one turn are not the next one's
            self.names = before
        if line.startswith("threads"):
            at_once = line.endswith("at once")
            start = "    thread.start()" + ("" if at_once else "\n    thread.join()")
            join = f"\nfor thread in threads{number}:\n    thread.join()" if at_once else ""
            return (
                f"def work{number}(turn):\n{body}\n"
                f"threads{number} = [threading.Thread(target=work{number}, args=(n,)) for n in ('t1', 't2')]\n"
                f"for thread in threads{number}:\n{start}{join}"
            )
        if not self.recorded or loops:
            return f"{line}\n{body}"
        whole = f"{line}\n    s{number}.value = {it}\n{body}"
        return f"{head} as s{number}:\n{indent(whole, '    ')}"

    def _fill(self, op: Op, it: str) -> str:
        values = iter(op.places)

        def filled() -> Iterator[str]:
            for text, name, form, conversion in string.Formatter().parse(op.text):
                yield text
                if name == "it":
                    yield it
                elif name:
                    yield self._value(*next(values), form or "", conversion or "")
                elif name == "":
                    yield "{}"

        return "".join(filled())

    def _value(self, place: str, value: Any, form: str, conversion: str) -> str:
        if place in NOWHERE and place in SUFFIX:
            known = self.names.get(place, [])
            return known[-1 - value % len(known)] + SUFFIX[place] if known else NOWHERE[place]
        return repr(value) if conversion == "r" else str(value)


def write(sequence: Sequence, recorded: bool = True) -> tuple[list[str], dict[int, str]]:
    """Return the sources of the cells, and the template of every call by its number.

    Parameters
    ----------
    sequence : Sequence
    recorded : bool
        Whether calls are wrapped so that they are recorded; else a person can paste the cells.
    """
    writer = _Writer(recorded)
    cells = [writer.cell(ops) for ops in sequence.cells]
    if sequence.closes:
        cells.append(writer.cell((CLOSING,)))
    first = PREAMBLE
    if recorded:
        first += "\nfrom recorder import pause, step\npause()"
    if sequence.apart:
        return [first, *cells], writer.calls
    return [f"{first}\n{cells[0]}", *cells[1:]], writer.calls


def pasted(sequence: Sequence) -> str:
    """Return a sequence as cells that a person can paste."""
    cells, _ = write(sequence, recorded=False)
    env = "".join(f"# started with {name}={value}\n" for name, value in sequence.env)
    return env + "\n# %%\n".join(cells).replace(TAG, "demo")


Spot = tuple[int, ...]


def paths(sequence: Sequence) -> list[Spot]:
    """Return the places of all calls, those in a block behind the block."""

    def below(ops: tuple[Op, ...], place: Spot) -> Iterator[Spot]:
        for number, op in enumerate(ops):
            yield (*place, number)
            yield from below(op.body, (*place, number))

    return [place for number, cell in enumerate(sequence.cells) for place in below(cell, (number,))]


def keeping(sequence: Sequence, kept: set[Spot]) -> Sequence:
    """Return a sequence with these calls alone; blocks around them stay, cells without any go."""

    def left(ops: tuple[Op, ...], place: Spot) -> Iterator[Op]:
        for number, op in enumerate(ops):
            position = (*place, number)
            body = tuple(left(op.body, position))
            if body or (position in kept and not op.body):
                yield replace(op, body=body)
            elif position in kept:  # a block needs something in it
                yield replace(op, body=op.body[:1]) if not op.body[0].body else op

    cells = [tuple(left(cell, (number,))) for number, cell in enumerate(sequence.cells)]
    return replace(sequence, cells=tuple(filter(None, cells)))
