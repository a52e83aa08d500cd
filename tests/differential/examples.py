"""Sequences that once gave something else when they were tracked, each under the name of what it shows."""

from typing import Any

from sequences import SEARCH, TAG, Op, Sequence

Written = str | tuple[str, str] | tuple[str, list[Any]]


def call(written: Written) -> Op:
    """Return a call: its text, or text and what its result is (``run``), or the head of a block and its body."""
    if isinstance(written, str):
        return Op(written)
    text, more = written
    return Op(text, binds=more) if isinstance(more, str) else Op(text, body=tuple(map(call, more)))


def sequence(*cells: list[Written], **more: Any) -> Sequence:
    """Return a sequence of cells."""
    return Sequence(tuple(tuple(map(call, cell)) for cell in cells), **more)


A, MODEL = f"'exp-{TAG}-a'", f"'mod-{TAG}-a'"
ENDING = "sum(1 for _ in range(9) if mlflow.active_run() and not mlflow.end_run())"
FIT = "LinearRegression().fit([[0], [1], [2]], [0, 1, 2])"
LOGGED = (
    f"mlflow.sklearn.log_model({FIT}, name='m', pip_requirements=['scikit-learn'], serialization_format='pickle', "
    f"registered_model_name={MODEL})"
)

EXAMPLES: dict[str, Sequence] = {
    "no run is active before one is started or something is logged": sequence(
        ["mlflow.active_run()", ENDING], ["mlflow.log_metric('a', 1)", ENDING, "mlflow.active_run()"]
    ),
    "no run is active behind a with block": sequence(
        [("with mlflow.start_run() as {it}:", ["mlflow.log_metric('a', 1)"]), "mlflow.active_run()"]
    ),
    "a loop that ends its run each time leaves one run each": sequence(
        [
            (
                "for turn in ('t1', 't2'):",
                [
                    "mlflow.log_param('lr', turn)",
                    "mlflow.log_metric('loss', 1)",
                    "mlflow.end_run()",
                    "mlflow.last_active_run().info.status",
                ],
            )
        ]
    ),
    "the active run has the tags that mlflow gives it": sequence(["mlflow.log_metric('a', 1)", "mlflow.active_run()"]),
    "a second start_run is refused as long as one is active": sequence(
        [
            "mlflow.log_metric('a', 1)",
            ("mlflow.start_run()", "run"),
            "mlflow.end_run()",
            ("mlflow.start_run()", "run"),
            ("mlflow.start_run()", "run"),
        ]
    ),
    "what was written is found in the next line": sequence(
        [
            f"mlflow.set_experiment({A})",
            (
                "with mlflow.start_run(run_name='one') as {it}:",
                [
                    "mlflow.log_params({{'a': 1}})",
                    "mlflow.log_metrics({{'b': 2.5}})",
                    "mlflow.set_tag('c', 'd')",
                    "mlflow.log_text('text', 'note.txt')",
                ],
            ),
            f"mlflow.search_runs(experiment_names=[{A}])",
            f"mlflow.search_runs({SEARCH})",
            "mlflow.artifacts.list_artifacts(run_id=mlflow.last_active_run().info.run_id)",
        ]
    ),
    "threads with a parent of their own": sequence(
        [
            (
                "with mlflow.start_run(run_name='parent') as {it}:",
                [
                    (
                        "threads one by one",
                        [
                            (
                                "with mlflow.start_run(run_name=turn, nested=True, "
                                "parent_run_id=r1.info.run_id) as {it}:",
                                ["mlflow.log_metric('a', 1)"],
                            )
                        ],
                    )
                ],
            )
        ]
    ),
    "threads that log without a run get one each": sequence(
        [("threads at once", ["mlflow.log_param('thread', turn)", "mlflow.log_metric('a', 1)", "mlflow.end_run()"])]
    ),
    "a notebook that is started with MLFLOW_RUN_ID continues that run": sequence(
        ["mlflow.log_metric('a', 1)", "mlflow.active_run()", "mlflow.end_run()", "mlflow.log_metric('a', 2)"],
        env=(("MLFLOW_RUN_ID", "RUN"),),
    ),
    "a notebook that is started with MLFLOW_EXPERIMENT_NAME logs there": sequence(
        ["mlflow.log_metric('a', 1)", f"mlflow.search_runs(experiment_names=[{A}])"],
        env=(("MLFLOW_EXPERIMENT_NAME", f"exp-{TAG}-a"),),
    ),
    "an experiment that the environment names is looked up once": sequence(
        [
            ("mlflow.start_run(run_name='before')", "run"),
            "mlflow.end_run()",
            "os.environ.__setitem__('MLFLOW_EXPERIMENT_ID', '12345678')",
            f"os.environ.__setitem__('MLFLOW_EXPERIMENT_NAME', {A})",
            "mlflow.log_metric('a', 1)",
            "mlflow.end_run()",
            "mlflow.log_metric('a', 2)",
        ]
    ),
    "an experiment is missing until it is created or chosen": sequence(
        [(f"mlflow.get_experiment_by_name({A})", "exp"), (f"mlflow.set_experiment({A})", "expid")]
    ),
    "set_experiment in the first cell chooses where the run is": sequence(
        [f"mlflow.set_experiment({A})", "mlflow.log_metric('a', 1)"], [f"mlflow.search_runs(experiment_names=[{A}])"]
    ),
    "nothing is logged to a deleted experiment": sequence(
        [(f"mlflow.set_experiment({A})", "expid"), "mlflow.delete_experiment(r1.experiment_id)", "mlflow.end_run()"],
        ["mlflow.log_table({{'x': [1]}}, 'table.json')", "mlflow.log_metric('a', 1)", "mlflow.active_run()"],
    ),
    "what a notebook logged before it chose its experiment is there once": sequence(
        [(LOGGED, "logged"), f"mlflow.set_experiment({A})"],
        ["mlflow.log_metric('a', 1)", f"mlflow.search_runs({SEARCH})"],
    ),
    "what is missing is missing": sequence(
        [
            f"mlflow.get_experiment_by_name({A})",
            "mlflow.get_experiment_by_name('Default')",
            f"client.get_registered_model({MODEL})",
            "client.get_run('0' * 32)",
        ]
    ),
    "a contradicting parameter is refused": sequence(
        ["mlflow.log_param('a', 1)", "mlflow.log_param('a', 2)", "mlflow.log_params({{'a': 2, 'b': 1}})"]
    ),
    "a registered model can be loaded at once": sequence(
        [
            (LOGGED, "logged"),
            f"client.set_registered_model_alias({MODEL}, 'best', '1')",
            *(
                f"mlflow.pyfunc.load_model('models:/' + {MODEL} + '{which}').predict([[3]])"
                for which in ("/1", "/latest", "@best")
            ),
        ],
        [f"client.get_model_version({MODEL}, '1')", f"client.get_registered_model({MODEL})"],
    ),
    "an alias, a tag and a description are never old": sequence(
        [
            (LOGGED, "logged"),
            f"client.set_registered_model_alias({MODEL}, 'best', '1')",
            f"client.get_model_version_by_alias({MODEL}, 'best')",
            f"client.set_model_version_tag({MODEL}, '1', 'a', 'b')",
            f"client.update_registered_model({MODEL}, 'text')",
            f"client.get_registered_model({MODEL})",
            f"client.delete_registered_model_alias({MODEL}, 'best')",
            f"client.get_model_version({MODEL}, '1')",
        ]
    ),
    "a model has the parameters that its run has": sequence(
        [
            "mlflow.log_param('a', 'two')",
            (LOGGED, "logged"),
            ("with mlflow.start_run(nested=True) as {it}:", ["mlflow.log_param('b', 'one')", (LOGGED, "logged")]),
        ]
    ),
    "another store is left alone": sequence(
        ["mlflow.set_tracking_uri('sqlite:///side.db')", "mlflow.log_metric('a', 1)", "mlflow.active_run()"],
        ["mlflow.end_run()", "mlflow.set_tracking_uri(os.environ['SERVER'])", "mlflow.log_metric('a', 2)"],
    ),
    "threads that start runs in a chosen experiment, beside a run elsewhere": sequence(
        [("mlflow.start_run()", "run")],
        [f"mlflow.set_experiment({A})", ("threads one by one", ["mlflow.log_text(None, 'note.txt')"])],
    ),
    "every store has a Default, not the notebook's experiment": sequence(
        ["mlflow.log_metric('a', 1)", "mlflow.set_tracking_uri('sqlite:///side.db')"],
        ["mlflow.initialize_logged_model(name='made')"],
    ),
    "a run that a client has ended keeps this status": sequence(
        [("with mlflow.start_run(nested=True) as {it}:", ["mlflow.set_tracking_uri('sqlite:///side.db')"])],
        ["client.update_run(r1.info.run_id, 'KILLED', 'first')"],
    ),
    "a run that is active ends with the kernel, whatever a client has set": sequence(
        [("mlflow.start_run(nested=True)", "run")], ["client.set_terminated(r1.info.run_id, 'FAILED')"], closes=False
    ),
    "a search finds the notebook's run, which then moves to the chosen experiment": sequence(
        [f"mlflow.search_runs({SEARCH}, output_format='list')", f"mlflow.set_experiment({A})"]
    ),
    "runs that threads leave open are found beside those that have ended": sequence(
        [("threads one by one", ["mlflow.log_artifact('here.txt')"])],
        [
            (
                "for turn in ('t1', 't2'):",
                ["mlflow.log_param('a', 'one')", f"mlflow.search_runs({SEARCH})", "mlflow.end_run('FAILED')"],
            )
        ],
    ),
    "a thread's run keeps the status that a client has set": sequence(
        [
            (
                "threads one by one",
                [("mlflow.start_run(nested=True)", "run"), "client.set_terminated(r2.info.run_id, 'FAILED')"],
            )
        ],
        closes=False,
    ),
    "a run that is left open is closed": sequence([("mlflow.start_run()", "run")], closes=False),
}
