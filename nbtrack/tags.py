"""The names of the tags that nbtrack sets on runs. Names only: kernels and senders import this module first.

The tags that a project's own code sets, such as a registry's, are not here.
"""

# MLflow's own
PARENT_RUN = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
DESCRIPTION = "mlflow.note.content"  # MLflow shows it as the run's description
USER = "mlflow.user"
SOURCE_NAME = "mlflow.source.name"
SOURCE_TYPE = "mlflow.source.type"
COMMIT = "mlflow.source.git.commit"
DATA_CONTEXT = "mlflow.data.context"  # on an input: which part of a data set it is
SHARED_VIEW = "mlflow.sharedViewState."  # on an experiment, followed by the view's key

# When the run begins
EXECUTION = "pokebattle.execution"
LOCAL_ID = "pokebattle.local_id"  # also on models and versions
EXECUTOR = "pokebattle.executor"
PARENT_EXECUTION = "pokebattle.parent_execution"
EXPERIMENT = "pokebattle.experiment"  # the script's, on a child run, which is in its parent's experiment
ATTEMPT = "pokebattle.attempt"
DIRTY = "pokebattle.git.dirty"
LOCK = "pokebattle.lock"
PYTHON = "pokebattle.python"
HOST = "pokebattle.host"

# Only while the run is open
KERNEL = "pokebattle.kernel"  # the identity of its process, as JSON
OLD_KERNEL = {key: f"pokebattle.{key}" for key in ("host", "boot", "pid", "started")}  # the same in older releases
SEEN = "pokebattle.seen"  # when the run was last written to

# How the execution went
ORDER = "pokebattle.order"
CAUSE = "pokebattle.cause"
ERROR = "pokebattle.error"
TRACEBACK = "pokebattle.traceback"
FAILED_CELL = "pokebattle.failed_cell"
FAILED_SOURCE = "pokebattle.failed_source"
OPENED = "pokebattle.opened."  # followed by the part of a data set that is held out: when it was opened

# What the run lacks
KNOWN = "pokebattle.known"  # what was recorded of an execution whose kernel was not tracked
DROPPED = "pokebattle.dropped"
CUT = "pokebattle.cut"
SET_ASIDE = "pokebattle.set_aside"

# Searches
STUDY = "pokebattle.study"
TRIAL = "pokebattle.trial"
TRIAL_STATE = "pokebattle.state"
BEST = "pokebattle.best"  # on the notebook's run: the best values as JSON
