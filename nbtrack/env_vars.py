"""The environment variables that nbtrack reads or sets. Names only; `nbtrack.team.settings` has the team server's."""

TRACKING = "POKEBATTLE_TRACKING"  # off: nothing is tracked
STATE = "POKEBATTLE_STATE"  # the folder for servers, journals and caches
SPOOL_MB = "POKEBATTLE_SPOOL_MB"  # maximum size of all waiting executions
LINGER = "POKEBATTLE_LINGER"  # seconds after a kernel's end for which delivery is retried
HANDOVER = "POKEBATTLE_EXECUTION"  # for a kernel: the path of the file that papermill's engine or pytest's plugin wrote
PARENT = "POKEBATTLE_PARENT"  # for kernels that a cell starts: the id of their parent execution

TRACKING_URI = "MLFLOW_TRACKING_URI"
USERNAME = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"
TOKEN = "MLFLOW_TRACKING_TOKEN"
SERVER_CERT_PATH = "MLFLOW_TRACKING_SERVER_CERT_PATH"
INSECURE_TLS = "MLFLOW_TRACKING_INSECURE_TLS"
RUN_ID = "MLFLOW_RUN_ID"
EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"

SERVER_SWITCHES = {  # of a server that nbtrack starts: no background jobs, no telemetry
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
