# ruff: noqa: E501 - a cell a line
"""Notebooks of many kinds that know nothing of tracking: a name and its cells.

Each says the same every time, apart from times, ids and addresses, so that what two environments make of it can be
compared. ``build`` writes them into a folder.
"""

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def tagged(source: str, *tags: str, **metadata: Any) -> Any:
    """Return a code cell with tags."""
    return new_code_cell(source, metadata={"tags": list(tags), **metadata})


SAMPLES: dict[str, list[Any]] = {
    "values": ["x = 20", "print('seen')\nx + 1", "x\nx * 2", "'text'; x", "None", "[x] * 3, {'a': {1, 2}}"],
    "empty_cells": ["", "  \n", "# nothing", new_markdown_cell(""), new_raw_cell(""), "1", ""],
    "other_cells": [
        new_markdown_cell("# A picture\n![p](attachment:p.png)", attachments={"p.png": {"image/png": PIXEL}}),
        new_raw_cell("as *it* stands", metadata={"raw_mimetype": "text/restructuredtext"}),
        tagged("1 + 1", "mine", collapsed=True, slideshow={"slide_type": "slide"}, jupyter={"source_hidden": True}),
        new_markdown_cell("$x^2$", metadata={"editable": False}),
    ],
    "unicode": [
        "print('🏃 naïve – ‮right to left‬ 日本語 \\x1b[31mred\\x1b[0m')\nПокемон = 'Пикачу'; Покемон",
        "raise ValueError('naïve 日本語')",
    ],
    "bad_text": ["'lone \\ud800 surrogate'", "print('nul \\0 here, bell \\a and form feed \\f')"],
    "error": ["print('before')", "def f():\n    1 / 0\nf()", "print('never')"],
    "expected_errors": [
        tagged("int('one')", "raises-exception"),
        tagged("if True:\nx = 1", "raises-exception"),
        tagged("(", "raises-exception"),
        tagged(
            "try:\n    {}['a']\nexcept KeyError as e:\n    raise RuntimeError('chained') from e", "raises-exception"
        ),
        tagged("def f(n):\n    return f(n + 1)\nf(0)", "raises-exception"),
        tagged("raise ExceptionGroup('two', [ValueError(1), TypeError('x')])", "raises-exception"),
        tagged("raise KeyboardInterrupt", "raises-exception"),
        tagged("%xmode Verbose", "raises-exception"),
        tagged("secret = 7\nsecret / 0", "raises-exception"),
        "print('on')",
    ],
    "shown_errors": [
        "get_ipython().showtraceback",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()",
        "class Odd:\n    def _repr_html_(self):\n        raise LookupError('no page')\nOdd().__class__.__name__",
        "get_ipython().set_custom_exc((LookupError,), lambda *a, **k: print('handled'))\nraise LookupError",
    ],
    "sys_exit": ["import sys\nprint('out')\nsys.exit(0)", "print('after')"],
    "sys_exit_3": ["import sys\nsys.exit(3)", "print('after')"],
    "kernel_dies": ["print('before', flush=True)", "import os, time\ntime.sleep(0.5)\nos._exit(1)", "print('never')"],
    "display_updates": [
        "from IPython.display import display, update_display\nh = display('first', display_id='same')\nh.update('second')",
        "a = display('one', display_id=True)\nb = display('two', display_id=True)\na.update('three'); b",
        "h.update('third')\nupdate_display({'text/html': '<b>4</b>', 'text/plain': 'four'}, raw=True, display_id='same')",
        "display('again', display_id='same')",
    ],
    "clear_output": [
        "from IPython.display import clear_output\nfor i in range(5):\n    clear_output()\n    print(i)",
        "for i in range(5):\n    clear_output(wait=True)\n    print(i)",
        "print('gone')\nclear_output(wait=True)",
        "print('stays')\nclear_output()\n'value'",
    ],
    "tqdm": [
        "from tqdm import tqdm\nimport sys\nfor _ in tqdm(range(3), file=sys.stdout, mininterval=0, bar_format='{n}/{total} |{bar:10}|'): pass",
        "bar = tqdm(total=4, mininterval=0, bar_format='{n}/{total} |{bar:10}|')\nfor _ in range(4):\n    bar.update()\nbar.close()",
    ],
    "tqdm_widgets": [
        "from tqdm.notebook import tqdm, trange\nfor _ in trange(3, desc='loop'): pass",
        "import pandas as pd\ntqdm.pandas(desc='rows')\npd.Series(range(3)).progress_apply(lambda v: v + 1).sum()",
    ],
    "widgets": [
        "import ipywidgets as w\nslider = w.IntSlider(value=3, description='n')\nslider",
        "out = w.Output()\nout",
        "with out:\n    print('inside')\n    1 / 0",
        "def show(n):\n    print('n =', n)\nw.interact(show, n=(0, 5))",
        "slider.value = 4\nw.HBox([slider, w.Button(description='go')])",
    ],
    "comms": [
        "from comm import create_comm\nc = create_comm(target_name='nobody', data={'a': 1})\nc.send({'b': 2})\nc.close()"
    ],
    "tasks": [
        "import asyncio\nasync def later(n):\n    for i in range(n):\n        await asyncio.sleep(0.02)\n        print('task', i)\n"
        "task = asyncio.create_task(later(3))\nprint('begun')",
        "await task\nprint('done')",
        "await asyncio.gather(*[asyncio.sleep(0.01, i) for i in range(3)])",
        "async def gen():\n    yield 1\n    yield 2\n[v async for v in gen()]",
    ],
    "threads": [
        "import threading\ndef say():\n    print('thread')\nt = threading.Thread(target=say)\nt.start(); t.join()\nprint('main')",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
        "    print(list(pool.map(str.upper, 'abc')))",
        "go = threading.Event()\ndef late():\n    go.wait()\n    print('late')\nt = threading.Thread(target=late); t.start()",
        "go.set(); t.join()\nprint('after')",
        "def bad():\n    raise ValueError('in a thread')\nt = threading.Thread(target=bad, name='bad'); t.start(); t.join()",
    ],
    "magics": [
        "%matplotlib inline\n%config InlineBackend.figure_format = 'png'\n%precision 3\n1 / 3",
        "x, y = 1, 'two'\n%who\n%whos",
        "%env FOREIGN=1\n%alias say echo said\n%say it",
        "%lsmagic",
        "%%capture taken\nprint('hidden')",
        "taken.stdout",
        "%time x = sum(range(10))\nx",
        "%%timeit -n 1 -r 1 -q -o\npass",
        "%no_such_magic",
    ],
    "cell_magics": [
        "%%bash\necho out; echo err >&2",
        "%%sh\nexit 0",
        "%%script python\nprint('a script')",
        "%%writefile made.py\nprint('from a file', __name__)\nmade = 1",
        "%run made.py\nmade",
        "%%html\n<b>bold</b>",
        "%%javascript\nconsole.log(1)",
        "%%latex\n$x$",
        "%%markdown\n# Title",
        "%%svg\n<svg xmlns='http://www.w3.org/2000/svg'/>",
        "%%time\n2 + 2",
        "%%python\nprint('another')",
        "%%bash\nexit 3",
    ],
    "run_scripts": [
        "%%writefile broken.py\nraise ValueError('broken script')",
        "%run broken.py",
        "print('after')",
        "exec(open('broken.py').read())",
    ],
    "shell": [
        "!echo said; echo wrong >&2",
        "files = !printf 'a\\nb\\n'\nfiles",
        "!exit 3\nprint(_exit_code)",
        "import os\nos.system('echo by the system')",
    ],
    "subprocesses": [
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(6 * 7)']).returncode",
        "print(subprocess.check_output(['echo', 'caught'], text=True))",
        "import os\nos.write(1, b'to the descriptor\\n')",
        "pid = os.fork()\nif pid == 0:\n    os._exit(5)\nos.waitpid(pid, 0)[1] >> 8",
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(1) as pool:\n    print(pool.map(abs, [-1, -2]))",
    ],
    "figures": [
        "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);",
        "fig, ax = plt.subplots(figsize=(2, 1))\nax.bar([1, 2], [3, 4])\nfig",
        "plt.plot([3, 1])\nplt.show()\nplt.close('all')\nprint('closed')",
    ],
    "rich": [
        "from IPython.display import *\ndisplay(HTML('<i>h</i>'), Latex('$l$'), Markdown('*m*'), JSON({'a': [1, None]}))",
        "display({'application/vnd.plotly.v1+json': {'data': [], 'layout': {}}, 'text/plain': 'plot'}, raw=True)",
        "class Many:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'text/plain': 'p', 'application/vnd.x+json': {'k': 1}}, {'text/plain': {'m': 2}}\nMany()",
        f"import base64\nImage(base64.b64decode('{PIXEL}'))",
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'), Javascript('1'), Math('x'), Pretty('p'))",
        "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', None]})",
        "display(1, 2, metadata={'text/plain': {'k': 'v'}})",
    ],
    "nested": [
        "import nbformat, nbclient\nfrom nbformat.v4 import new_code_cell, new_notebook\n"
        "nb = new_notebook(cells=[new_code_cell('print(6 * 7)', id='inner')])\nnbclient.NotebookClient(nb).execute()\n"
        "nb.cells[0].outputs",
        "nbformat.write(nb, 'inner.ipynb')\nimport papermill\n"
        "done = papermill.execute_notebook('inner.ipynb', 'inner-out.ipynb', progress_bar=False)\ndone.cells[0].outputs",
        "bad = new_notebook(cells=[new_code_cell('1 / 0', id='inner')], metadata=nb.metadata)\n"
        "papermill.execute_notebook(bad, None, progress_bar=False)",
    ],
    "warnings": [
        "import warnings\nwarnings.warn('careful')",
        "warnings.warn('old', DeprecationWarning)\nwarnings.warn('soon', FutureWarning)",
        "def f():\n    warnings.warn('inside', stacklevel=2)\nf()",
        "warnings.simplefilter('error')\nimport importlib\nimport json, csv\nprint('no warning')",
        "import sklearn.linear_model, mlflow\nprint('imported under error filters')",
    ],
    "logging": [
        "import logging\nlogging.warning('root %s', 1)\nlogging.getLogger('a').error('err')",
        "logging.basicConfig(level='DEBUG', format='%(levelname)s %(name)s %(message)s', force=True)\nlogging.debug('shown')",
        "print(sorted(h.__class__.__name__ for h in logging.getLogger().handlers))\nlogging.info('again')",
        "import urllib.request, asyncio\nawait asyncio.sleep(0.2)\nlogging.info('nothing of others')",
    ],
    "stdin": [tagged("input('name? ')", "raises-exception"), "import getpass\ngetpass.getpass()"],
    "huge_output": [
        "print('\\n'.join(f'line {i}' for i in range(20_000)))",
        "print('x' * 3_000_000)",
        "'y' * 1_000_000",
        "from IPython.display import display\nfor i in range(500):\n    display(i)",
    ],
    "parameters": [
        tagged("n: int = 3  # how many\nname = 'a'\nrate = 1e-3\nnothing = None\nmany = [1, 2]", "parameters"),
        "n, name, rate, nothing, many",
        tagged("print('kept')", "remove-output"),
    ],
    "mlflow_runs": [
        "import mlflow, uuid\nmlflow.set_experiment(f'sample-{uuid.uuid4()}').lifecycle_stage",
        "with mlflow.start_run(run_name='one') as run:\n    mlflow.log_param('p', 1)\n    mlflow.log_metric('m', 0.5)\n"
        "    mlflow.set_tag('t', 'v')\n    mlflow.log_text('text', 'a.txt')\nrun.info.status",
        "got = mlflow.get_run(run.info.run_id)\ngot.data.params, got.data.metrics, got.data.tags['t'], got.info.status",
        "mlflow.search_runs(filter_string=f\"attributes.run_id = '{run.info.run_id}'\")[['params.p', 'metrics.m', 'status']]",
        "mlflow.active_run(), mlflow.last_active_run().info.run_name",
        "mlflow.artifacts.load_text(run.info.artifact_uri + '/a.txt')",
        "mlflow.log_param(1, 2, 3, 4)",
    ],
    "mlflow_errors": [
        tagged("import mlflow\nmlflow.get_run('0' * 32)", "raises-exception"),
        "print(mlflow.get_experiment_by_name('none of that name'))",
        tagged("with mlflow.start_run():\n    mlflow.log_metric('m', 'text')", "raises-exception"),
        tagged(
            "with mlflow.start_run():\n    mlflow.log_param('p', 1)\n    raise LookupError('mine')", "raises-exception"
        ),
        "while mlflow.active_run():\n    mlflow.end_run()\nprint('ended')",
    ],
    "learning": [
        "import numpy as np\nfrom sklearn.linear_model import LogisticRegression\nX = np.arange(20.).reshape(10, 2)\n"
        "y = np.arange(10) > 4\nmodel = LogisticRegression(max_iter=200).fit(X, y)\nmodel.score(X, y)",
        "import inspect\nprint(inspect.signature(LogisticRegression.fit), LogisticRegression.fit.__name__)\nmodel",
        tagged("LogisticRegression().fit(X, y[:3])", "raises-exception"),
        "LogisticRegression(max_iter=1).fit(X, y).n_iter_",
        "from xgboost import XGBClassifier, XGBRegressor\n"
        "XGBClassifier(n_estimators=2, n_jobs=1).fit(X, y, eval_set=[(X, y)]).n_features_in_",
        "print(inspect.signature(XGBRegressor.fit))",
    ],
    "history": [
        "1 + 1",
        "_ + 1",
        "Out[1], _2, In[1]",
        "%history",
        "get_ipython().execution_count",
        "get_ipython().run_cell('print(\"inner\"); 5').result",
        "get_ipython().run_cell('1 / 0').success",
        "get_ipython().ex('z = 9'); z",
        "%rerun 1",
    ],
    "namespace": [
        "sorted(name for name in globals() if name[:1] != '_')",
        "before = set(globals())\nimport builtins, sys\nprint(sys.argv[0].rpartition('/')[2], len(sys.path_hooks), __name__)",
        "import os\nprint(sys.stdout.__class__.__name__, sys.excepthook.__name__, sys.displayhook.__class__.__name__)",
        "import signal, threading\nprint(signal.getsignal(signal.SIGTERM), threading.active_count() > 0)",
        "%reset -f\n'before' in globals()",
        "sorted(name for name in globals() if name[:1] != '_')",
    ],
    "introspection": [
        "len?",
        "def f(a, b=1):\n    'Doc.'\nf??",
        "help(len)",
        "%pdoc f",
        "get_ipython().set_next_input('2')",
    ],
    "events": [
        "ip = get_ipython()\ncount = []\nip.events.register('pre_run_cell', lambda info: count.append(info.raw_cell[:5]))\n"
        "ip.events.register('post_run_cell', lambda result: print('after', result.execution_count))",
        "len(count)",
        "1 / 0",
    ],
    "transformers": [
        "ip = get_ipython()\nip.input_transformers_cleanup.append(lambda lines: [l.replace('twelve', '12') for l in lines])",
        "twelve + 1",
        "ip.ast_node_interactivity = 'all'",
        "1\n2\nprint(3)",
        "from IPython.core.magic import register_cell_magic\n@register_cell_magic\ndef twice(line, cell):\n"
        "    get_ipython().run_cell(cell); get_ipython().run_cell(cell)",
        "%%twice\nprint('cell')",
    ],
    "atexit": [
        "import atexit\natexit.register(lambda: open('left.txt', 'w').write('at exit'))\natexit.register(print, 'bye');",
        "class Held:\n    def __del__(self):\n        print('deleted')\nheld = Held()\ndel held",
    ],
    "interrupts": [
        tagged(
            "import signal, os, time\nsignal.alarm(0)\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)",
            "raises-exception",
        ),
        "print('goes on')",
        tagged(
            "def handler(*_):\n    raise TimeoutError('too long')\nsignal.signal(signal.SIGALRM, handler)\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(5)",
            "raises-exception",
        ),
    ],
    "streams": [
        "import sys\nprint('out'); print('err', file=sys.stderr); print('out again')",
        "sys.stdout.write('no line end'); sys.stdout.flush()",
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as s:\n    print('caught')\ns.getvalue()",
        "print('a', end='\\r'); print('b')",
        "sys.stderr.write('x' * 10)",
    ],
    "quit": ["print('before')\nquit()", "print('after')"],
}


def notebook(name: str) -> Any:
    """Return the sample ``name``, or the samples ``one+two`` after one another; their cells have readable ids."""
    sources = [cell for part in name.split("+") for cell in SAMPLES[part]]
    cells = [new_code_cell(cell) if isinstance(cell, str) else cell.copy() for cell in sources]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    return new_notebook(cells=cells, metadata=KERNEL)


def without_ids(document: Any) -> Any:
    """Return a notebook in nbformat 4.4, whose cells have no ids."""
    older = nbformat.from_dict({**document, "nbformat_minor": 4, "cells": [dict(cell) for cell in document.cells]})
    for cell in older.cells:
        cell.pop("id", None)
    return older


def build(folder: Path, names: list[str]) -> list[Path]:
    """Write samples into a folder; ``NAME_44`` is ``NAME`` in nbformat 4.4."""
    paths = []
    for name in names:
        plain = notebook(name.removesuffix("_44"))
        paths.append(folder / f"{name}.ipynb")
        nbformat.write(without_ids(plain) if name.endswith("_44") else plain, paths[-1])
    return paths


def names() -> list[str]:
    """Return all samples."""
    return [*SAMPLES, "values_44", "parameters_44", "error_44"]
