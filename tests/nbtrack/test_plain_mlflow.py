"""Cells that use mlflow print the same tracked and untracked, and leave the same behind."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from faults import FaultProxy
from guard import guarded

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
RESET = "while mlflow.active_run():\n    mlflow.end_run()\n"
SET_UP = """
import contextlib, io, json, os, subprocess, sys, threading, mlflow
from mlflow import MlflowClient
client = MlflowClient()
side = os.environ['SIDE']
mlflow.set_experiment(f'cells {side}')
def runs(**options):
    return [r for r in mlflow.search_runs(output_format='list', **options)]
def error(function, *args, **kwargs):
    try:
        print('no error', function(*args, **kwargs))
    except Exception as raised:
        print(type(raised).__name__, str(raised).splitlines()[0])
"""
SNIPPETS = {
    "nothing is active before": "print(mlflow.active_run(), mlflow.last_active_run())",
    "ends when there is no active run": """
mlflow.log_metric('m', 1)
count = 0
while mlflow.active_run():
    mlflow.end_run(); count += 1
print(count)""",
    "one run each": """
for lr in (.1, .2):
    mlflow.log_param('lr', lr); mlflow.log_metric('loss', lr * 10); mlflow.end_run()
print(sorted((r.data.params['lr'], r.data.metrics['loss'], r.info.status) for r in runs() if 'lr' in r.data.params))
print(mlflow.active_run(), mlflow.last_active_run().info.status)""",
    "parameters in a loop without an end": """
for lr in (.1, .2):
    error(mlflow.log_param, 'rate', lr)
print(mlflow.get_run(mlflow.active_run().info.run_id).data.params)""",
    "none is active behind a with statement": """
with mlflow.start_run(run_name='block') as run:
    mlflow.log_param('p', 1)
print(mlflow.active_run(), mlflow.last_active_run().info.run_id == run.info.run_id)
found = runs(filter_string="attributes.run_name = 'block'")
print([(r.info.run_name, r.data.params, r.info.status) for r in found])""",
    "a second run is refused": """
mlflow.log_metric('m', 1)
try:
    mlflow.start_run()
except Exception as raised:
    print(type(raised).__name__, 'is already active' in str(raised))
with mlflow.start_run(nested=True) as inner:
    print(inner.data.tags['mlflow.parentRunId'] == mlflow.tracking.fluent._active_run_stack.get()[0].info.run_id)""",
    "a path that the server does not have": """
from mlflow.utils.rest_utils import http_request
creds = client._tracking_client.store.get_host_creds()
for method in ('GET', 'POST'):
    answer = http_request(creds, '/api/2.0/mlflow/of-another-release', method)
    print(answer.status_code, answer.headers['content-type'], answer.text[:40])
mlflow.log_metric('after', 1)""",
    "threads with a parent": """
def work(number, parent):
    with mlflow.start_run(run_name=f'thread {number}', nested=True, parent_run_id=parent):
        mlflow.log_metric('n', number)
with mlflow.start_run(run_name='threads') as outer:
    threads = [threading.Thread(target=work, args=(n, outer.info.run_id)) for n in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
found = runs(filter_string=f"tags.`mlflow.parentRunId` = '{outer.info.run_id}'")
print(sorted((r.info.run_name, r.data.metrics['n'], r.info.status) for r in found))""",
    "a run that was ended is resumed": """
with mlflow.start_run() as run:
    mlflow.log_metric('a', 1)
with mlflow.start_run(run_id=run.info.run_id) as again:
    print(client.get_run(run.info.run_id).info.status)
    mlflow.log_metric('a', 2)
print(client.get_run(run.info.run_id).data.metrics, client.get_run(run.info.run_id).info.status)""",
    "a resumed run has its new tags": """
with mlflow.start_run() as run:
    pass
with mlflow.start_run(run_id=run.info.run_id, tags={'k': 'v'}, description='told') as again:
    print(again.data.tags['k'], again.data.tags['mlflow.note.content'])""",
    "a run that was handed over": """
other = client.create_run(client.get_experiment_by_name(f'cells {side}').experiment_id)
os.environ['MLFLOW_RUN_ID'] = other.info.run_id
mlflow.log_metric('handed', 3)
print(mlflow.active_run().info.run_id == other.info.run_id, 'MLFLOW_RUN_ID' in os.environ)
mlflow.end_run()
print(client.get_run(other.info.run_id).data.metrics)""",
    "a question sees what was written": """
for n in range(20):
    mlflow.log_metric('seen', n, step=n)
    mlflow.set_tag('last', n)
own = mlflow.active_run().info.run_id
print(len(client.get_metric_history(own, 'seen')), client.get_run(own).data.tags['last'])
print(len(runs(filter_string="metrics.seen = 19")))
mlflow.log_text('content', 'a.txt')
print([f.path for f in client.list_artifacts(own)][:1], mlflow.artifacts.load_text(f'runs:/{own}/a.txt'))""",
    "points of one millisecond": """
with mlflow.start_run() as run:
    for value in (3.0, 1.0, 2.0):
        mlflow.log_metric('same', value)
print(client.get_run(run.info.run_id).data.metrics)""",
    "experiments": """
print(mlflow.get_experiment_by_name('Default').experiment_id, mlflow.get_experiment_by_name('there is none'))
made = mlflow.create_experiment(f'made {side}')
error(lambda: 'id' if mlflow.create_experiment(f'made {side}') else 0)
client.rename_experiment(made, f'renamed {side}')
client.set_experiment_tag(made, 'k', 'v')
print(client.get_experiment(made).name.split()[0], client.get_experiment(made).tags['k'])
client.delete_experiment(made)
print(client.get_experiment(made).lifecycle_stage)
client.restore_experiment(made)
print(client.get_experiment_by_name(f'made {side}'))
print(client.get_experiment_by_name(f'renamed {side}').lifecycle_stage)""",
    "registered models": """
name = f'model {side}'
print(client.create_registered_model(name).tags)
with mlflow.start_run() as run:
    mlflow.log_text('x', 'm/x.txt')
version = client.create_model_version(name, f'{run.info.artifact_uri}/m', run.info.run_id)
print(version.version, type(version.version).__name__, version.status)
client.set_registered_model_alias(name, 'best', version.version)
client.set_model_version_tag(name, '1', 'k', 'v')
client.update_model_version(name, '1', 'told')
found = client.get_model_version_by_alias(name, 'best')
print(found.version, found.tags, found.description, found.aliases)
print(client.transition_model_version_stage(name, '1', 'Staging').current_stage)
print([v.version for v in client.get_latest_versions(name, ['Staging'])])
client.delete_registered_model_alias(name, 'best')
error(client.get_model_version_by_alias, name, 'best')
client.rename_registered_model(name, name + ' 2')
error(client.get_registered_model, 'no such model')
print(client.get_model_version(name + ' 2', '1').current_stage)""",
    "deleted and restored": """
with mlflow.start_run() as run:
    mlflow.set_tag('k', 'v')
client.delete_tag(run.info.run_id, 'k')
try:
    client.delete_tag(run.info.run_id, 'k')
except Exception as raised:
    print(type(raised).__name__, raised.error_code)
client.delete_run(run.info.run_id)
print(client.get_run(run.info.run_id).info.lifecycle_stage)
try:
    client.log_metric(run.info.run_id, 'm', 1)
except Exception as raised:
    print(type(raised).__name__, raised.error_code)
client.restore_run(run.info.run_id)
client.log_metric(run.info.run_id, 'm', 1)
print(client.get_run(run.info.run_id).data.metrics)""",
    "names that are refused": """
with mlflow.start_run():
    for key in ('a@b', 'k' * 251, '', '../up', 'fine'):
        try:
            mlflow.log_metric(key, 1.0); print(key[:9], 'taken')
        except Exception as raised:
            print(key[:9], type(raised).__name__, raised.error_code)""",
    "what mlflow looks up sees the tags that were set": """
with mlflow.start_run(run_name='first name') as run:
    for n in range(3):
        mlflow.log_table({'n': [n]}, f'table {n}.json')
    mlflow.set_tag('mlflow.runName', 'second name')
    client.set_terminated(run.info.run_id)
print(sorted(t['path'] for t in json.loads(client.get_run(run.info.run_id).data.tags['mlflow.loggedArtifacts'])))
with mlflow.start_run(run_id=run.info.run_id, tags={'k': 'v'}, description='told') as again:
    print(again.data.tags['k'], again.data.tags['mlflow.note.content'], again.info.run_name)
shown = io.StringIO()
with contextlib.redirect_stdout(shown), mlflow.start_run(run_id=run.info.run_id):
    mlflow.set_tag('mlflow.runName', 'third name')
print('View run third name' in shown.getvalue())""",
    "other processes and clients see what was logged": """
look = '''\\
import json, sys, urllib.request
uri, run = sys.argv[1:]
with urllib.request.urlopen(f'{uri}/api/2.0/mlflow/runs/get?run_id={run}') as answer:
    metrics = len(json.load(answer)['run']['data'].get('metrics', []))
with urllib.request.urlopen(f'{uri}/api/2.0/mlflow/artifacts/list?run_id={run}') as answer:
    print(metrics, len(json.load(answer).get('files', [])))'''
other = MlflowClient(mlflow.get_tracking_uri().replace('127.0.0.1', 'localhost'))
with mlflow.start_run() as run:
    for n in range(3):
        mlflow.log_metric(f'm{n}', n); mlflow.log_text('x', f'{n}.txt')
        command = [sys.executable, '-c', look, mlflow.get_tracking_uri(), run.info.run_id]
        print(subprocess.run(command, capture_output=True, text=True).stdout)
        mlflow.log_metric(f'n{n}', n); mlflow.log_text('x', f'other {n}.txt')
        print(len(other.get_run(run.info.run_id).data.metrics), len(other.list_artifacts(run.info.run_id)))
    mlflow.log_metric('last', 1)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(writing, 1)
        os.execv(sys.executable, command)
    os.waitpid(child, 0)
    print(os.read(reading, 99).decode())""",
    "names of artifacts that end early in an address": """
with mlflow.start_run() as run:
    mlflow.log_text('x', 'a#b.txt'); mlflow.log_text('x', 'folder/c?d.txt')
print([[f.path for f in client.list_artifacts(run.info.run_id, path)] for path in (None, 'folder')])""",
    "a time before 1970": """
with mlflow.start_run():
    error(client.log_metric, mlflow.active_run().info.run_id, 'm', 1.0, timestamp=-5)""",
    "values that are not finite": """
with mlflow.start_run() as run:
    mlflow.log_metrics({'nan': float('nan'), 'high': float('inf'), 'low': float('-inf'), 'plain': 1.0})
print(sorted((k, str(v)) for k, v in client.get_run(run.info.run_id).data.metrics.items()))""",
    "a model is loaded at once": """
import mlflow.sklearn
from sklearn.linear_model import LinearRegression
with mlflow.start_run():
    logged = mlflow.sklearn.log_model(
        LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), name='line', registered_model_name=f'line {side}',
        pip_requirements=['scikit-learn'], serialization_format='skops')
client.set_registered_model_alias(f'line {side}', 'now', 1)
for address in (logged.model_uri, f'models:/line {side}/1', f'models:/line {side}/latest', f'models:/line {side}@now'):
    print(round(float(mlflow.pyfunc.load_model(address).predict([[2.0]])[0]), 6))
print(mlflow.get_logged_model(logged.model_id).status)
print(client.get_model_version(f'line {side}', 1).model_id == logged.model_id)""",
    "a model is registered by its address": """
import mlflow.sklearn
from sklearn.linear_model import LinearRegression
with mlflow.start_run() as run:
    logged = mlflow.sklearn.log_model(
        LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), name='line',
        pip_requirements=['scikit-learn'], serialization_format='skops')
name = f'by address {side}'
for address in (f'runs:/{run.info.run_id}/line', logged.model_uri, f'models:/{name}/1'):
    version = mlflow.register_model(address, name)
    print(version.version, type(version.version).__name__, version.status, version.run_id == run.info.run_id)""",
    "a metric of a model is read in the next line": """
def shown(model):
    return sorted((m.key, m.value, m.step) for m in mlflow.get_logged_model(model.model_id).metrics or [])
with mlflow.start_run() as run:
    model = mlflow.create_external_model(name='outside')
    print(shown(model))
    mlflow.log_metric('score', 0.5, model_id=model.model_id)
    print(shown(model))
    mlflow.log_metrics({'a': 1.0, 'b': 2.0}, step=3, model_id=model.model_id)
    print(shown(model))
print(client.get_run(run.info.run_id).data.metrics)""",
    "what another client changes is read in the next line": """
import urllib.request
def elsewhere(method, path, **body):
    address, kind = f'{mlflow.get_tracking_uri()}/api/2.0/mlflow/{path}', {'Content-Type': 'application/json'}
    urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode(), kind, method=method)).close()
name, renamed = f'moved {side}', f'moved on {side}'
client.create_registered_model(name)
with mlflow.start_run(run_name='old name') as run:
    mlflow.set_tag('k', 'old'); mlflow.log_text('x', 'm/x.txt')
source = f'{run.info.artifact_uri}/m'
versions = [client.create_model_version(name, source, run.info.run_id).version for _ in range(2)]
client.set_registered_model_alias(name, 'best', versions[0])
client.set_model_version_tag(name, versions[0], 'k', 'old')
made = mlflow.create_experiment(f'moved {side}', tags={'k': 'old'})
def shown():
    first, changed = client.get_model_version(name, versions[0]), client.get_run(run.info.run_id)
    place = client.get_experiment(made)
    print(client.get_model_version_by_alias(name, 'best').version, first.current_stage, first.tags, first.description)
    print(changed.data.tags['k'], changed.info.run_name, place.name.split()[-2], place.tags['k'])
    print(client.get_registered_model(name).aliases, [v.version for v in client.get_latest_versions(name, ['Staging'])])
shown()
elsewhere('POST', 'registered-models/alias', name=name, alias='best', version=versions[1])
elsewhere('POST', 'model-versions/transition-stage', name=name, version=versions[0], stage='Staging')
elsewhere('POST', 'model-versions/set-tag', name=name, version=versions[0], key='k', value='new')
elsewhere('PATCH', 'model-versions/update', name=name, version=versions[0], description='told')
elsewhere('POST', 'runs/set-tag', run_id=run.info.run_id, key='k', value='new')
elsewhere('POST', 'runs/update', run_id=run.info.run_id, run_name='new name')
elsewhere('POST', 'experiments/update', experiment_id=made, new_name=f'moved on {side}')
elsewhere('POST', 'experiments/set-experiment-tag', experiment_id=made, key='k', value='new')
shown()
elsewhere('POST', 'registered-models/rename', name=name, new_name=renamed)
error(client.get_registered_model, name)
print(client.get_model_version_by_alias(renamed, 'best').version, mlflow.get_experiment_by_name(f'moved {side}'))""",
    "the printed link opens the run": """
import urllib.request
shown = io.StringIO()
with contextlib.redirect_stdout(shown), mlflow.start_run(run_name='linked'):
    mlflow.log_metric('m', 1)
links = [word for word in shown.getvalue().split() if '/runs/' in word]
address = f'{mlflow.get_tracking_uri()}/api/2.0/mlflow/runs/get?run_id={links[0].rpartition("/")[2]}'
with urllib.request.urlopen(address) as answer:
    print(len(links), 'View run linked at' in shown.getvalue(), json.load(answer)['run']['info']['run_name'])""",
}


def _cells() -> list[Any]:
    sources = [SET_UP, *(RESET + source.strip("\n") for source in SNIPPETS.values())]
    return [nbformat.v4.new_code_cell(source) for source in sources]


def _printed(tracked: Any, side: str, **env: str) -> dict[str, str]:
    """Execute the snippets by papermill; return what each printed."""
    path = tracked.write(f"{side}.ipynb", nbformat.v4.new_notebook(cells=_cells(), metadata=KERNEL))
    done = tracked.execute("papermill", path.name, f"out_{side}.ipynb", SIDE=side, **env)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(tracked.folder / f"out_{side}.ipynb", 4).cells[1:]
    printed = ["".join(o.text for o in cell.outputs if o.get("name") == "stdout") for cell in cells]
    shown = [re.sub(r"(?m)^(🏃|🧪).*\n|[0-9a-f]{32}", "", text).replace(side, "SIDE") for text in printed]
    return dict(zip(SNIPPETS, shown, strict=True))


@pytest.fixture(scope="module")
def untracked(shared: Any) -> dict[str, str]:
    """What the snippets print in an environment that tracks nothing."""
    return _printed(shared, "side0", POKEBATTLE_TRACKING="off")


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Keep the machine busy with two processes for each core that never pause."""
    with contextlib.ExitStack() as ended:
        for _ in range(2 * (os.cpu_count() or 1)):
            child = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            ended.enter_context(guarded(child.pid))
            ended.callback(child.kill)
        yield


@pytest.fixture(scope="module", params=["directly", "busy", "90 ms"])
def printed(request: pytest.FixtureRequest, shared: Any, mlflow_server: str) -> dict[str, str]:
    """What they print tracked: on this machine, on a busy one, and with a server that is as far away as this."""
    if request.param == "directly":
        return _printed(shared, "side1")
    if request.param == "busy":
        with _busy():
            return _printed(shared, "side3")
    with FaultProxy(mlflow_server) as proxy:
        proxy.delay, proxy.mode = int(request.param.split()[0]) / 1000, "slow"
        return _printed(shared, "side2", MLFLOW_TRACKING_URI=proxy.uri)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_cell_prints_the_same_tracked(untracked: dict[str, str], printed: dict[str, str], snippet: str) -> None:
    assert untracked[snippet] and printed[snippet] == untracked[snippet]


@pytest.mark.parametrize(
    ("cells", "env"),
    [
        (("import mlflow\nmlflow.set_experiment('by name')", "mlflow.log_metric('m', 1)"), {}),
        (("import mlflow\nmlflow.set_experiment(' '.join(['by', 'name']))", "mlflow.log_metric('m', 1)"), {}),
        (("import mlflow\nmlflow.log_metric('m', 1)",), {"MLFLOW_EXPERIMENT_NAME": "by name"}),
        (("import mlflow, os\nos.environ['MLFLOW_EXPERIMENT_NAME'] = 'by name'", "mlflow.log_metric('m', 1)"), {}),
    ],
    ids=["literal", "computed", "environment", "environment set by a cell"],
)
def test_cells_choose_the_experiment_of_the_run(
    tracked: Any, make_notebook: Any, cells: tuple[str, ...], env: dict[str, str]
) -> None:
    path = tracked.write("chooses.ipynb", make_notebook(*cells))
    done = tracked.papermill(path, **env)
    assert done.returncode == 0, done.stderr
    (run,) = tracked.runs("by name")
    assert (run.data.metrics["m"], run.info.run_name, run.info.status) == (1.0, "chooses", "FINISHED")
    left = tracked.client.get_experiment_by_name("chooses")
    assert not left or tracked.client.search_runs([left.experiment_id]) == []


def test_what_cells_wrote_before_they_chose_the_experiment_is_written_once(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nfrom sklearn.linear_model import LinearRegression\n"
        "mlflow.sklearn.log_model(LinearRegression().fit([[0], [1]], [0, 1]), name='before', "
        "pip_requirements=['scikit-learn'], serialization_format='skops')",
        "client = mlflow.MlflowClient()\nother = client.create_run('0').info.run_id\n"
        "client.set_tag(other, 'a', 'one')\nclient.delete_tag(other, 'a')",
        "chosen = mlflow.set_experiment(' '.join(['chosen', 'late']))\nmlflow.log_metric('m', 1)\n"
        "here = mlflow.active_run().info.experiment_id == chosen.experiment_id\n"
        "print(here, client.get_run(other).data.tags.get('a'), other)",
    )
    done = tracked.papermill(tracked.write("late.ipynb", make_notebook(*cells)))
    assert done.returncode == 0, done.stderr
    is_there, tag, other = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs[-1].text.split()[-3:]
    assert (is_there, tag) == ("True", "None")
    (run,) = tracked.runs("chosen late")
    assert (run.info.status, run.data.metrics["m"]) == ("FINISHED", 1.0)
    assert "pokebattle.set_aside" not in run.data.tags
    assert "a" not in tracked.client.get_run(other).data.tags


def test_a_question_waits_where_a_write_did_not(tracked: Any, make_notebook: Any, mlflow_server: str) -> None:
    cells = (
        "import mlflow\nmlflow.log_metric('m', 1)\nmade = mlflow.create_experiment('slowly made')",
        "print([e.name for e in mlflow.search_experiments(filter_string=\"name = 'slowly made'\")])",
    )
    path = tracked.write("asks.ipynb", make_notebook(*cells))
    with FaultProxy(mlflow_server) as proxy:
        proxy.paths, proxy.delay, proxy.mode = "experiments/create", 3.0, "slow"
        tracked.client.create_experiment("asks")
        done = tracked.papermill(path, MLFLOW_TRACKING_URI=proxy.uri)
    assert done.returncode == 0, done.stderr
    assert nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs[0].text == "['slowly made']\n"


def test_a_cell_that_deletes_its_notebooks_run_continues(tracked: Any, make_notebook: Any) -> None:
    cells = (
        "import mlflow\nclient = mlflow.MlflowClient()\nmlflow.log_metric('m', 1)\nmlflow.end_run()\n"
        "own = mlflow.last_active_run().info.run_id\nclient.delete_run(own)",
        "with mlflow.start_run(run_name='other') as other:\n    mlflow.log_metric('n', 2)",
        "print(client.get_run(own).info.lifecycle_stage, client.get_run(other.info.run_id).data.metrics)",
    )
    done = tracked.papermill(tracked.write("deletes.ipynb", make_notebook(*cells)))
    assert done.returncode == 0, done.stderr
    shown = nbformat.read(tracked.folder / "out.ipynb", 4).cells[2].outputs[-1].text
    assert shown == "deleted {'n': 2.0}\n"


def test_threads_that_begin_to_log_at_once_have_a_run_each(tracked: Any, make_notebook: Any) -> None:
    cell = """
import mlflow, threading
ready, used = threading.Barrier(8), []
def work(n):
    ready.wait()
    mlflow.log_param('n', n)
    used.append(mlflow.active_run().info.run_id)
    mlflow.end_run()
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(used), len(set(used)))"""
    assert tracked.papermill(tracked.write("at_once.ipynb", make_notebook(cell))).returncode == 0
    outputs = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs  # in any number of pieces
    assert "".join(output.text for output in outputs).splitlines()[-1] == "8 8"


def test_a_traceback_has_no_frame_of_tracking(tracked: Any, make_notebook: Any) -> None:
    cell = "import mlflow\nmlflow.log_param('a', 1)\nmlflow.log_param('a', 2)"
    path = tracked.write("raises.ipynb", make_notebook(cell))
    assert tracked.papermill(path).returncode == 1
    (output,) = nbformat.read(tracked.folder / "out.ipynb", 4).cells[-1].outputs
    assert output.ename == "MlflowException" and "Changing param values is not allowed" in output.evalue
    assert "log_param" in "\n".join(output.traceback) and "pokebattle" not in "\n".join(output.traceback)


@pytest.mark.parametrize(("last", "status"), [("1 + 1", "FINISHED"), ("1 / 0", "FAILED")])
def test_a_run_left_open_in_a_file_ends_with_the_kernel(
    tracked: Any, make_notebook: Any, last: str, status: str
) -> None:
    import mlflow

    elsewhere = f"sqlite:///{tracked.folder}/elsewhere.db"
    turn = f"import mlflow\nmlflow.set_tracking_uri({elsewhere!r})"
    cells = (turn, "mlflow.start_run()\nmlflow.log_metric('m', 1)", last)
    tracked.papermill(tracked.write("leaves.ipynb", make_notebook(*cells)))
    tracked.runs("leaves")
    (run,) = mlflow.MlflowClient(elsewhere).search_runs(["0"])
    assert run.info.status == status


def test_the_source_of_a_run_is_the_notebook(tracked: Any, make_notebook: Any) -> None:
    cell = "import mlflow\nwith mlflow.start_run(run_name='inner'):\n    pass"
    path = tracked.write("source.ipynb", make_notebook(cell))
    assert tracked.papermill(path).returncode == 0
    names = {run.info.run_name: Path(run.data.tags["mlflow.source.name"]).name for run in tracked.runs("source", 2)}
    assert names == {"source": "source.ipynb", "inner": "source.ipynb"}
