"""``python -m nbtrack shared start|stop|status|env|serve``: the team's server without Docker."""

import argparse
import os
import sys

from nbtrack.paths import project
from nbtrack.team import settings as s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "action",
        choices=["start", "stop", "status", "env", "serve"],
        help="env writes .env with random secrets; serve runs MLflow in the foreground, from the environment alone",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do it; 1 when a setting is wrong or a part is not well."""
    return {"start": _start, "stop": _stop, "status": _status, "env": _env, "serve": _serve}[arguments.action]()


def _env() -> int:
    filled = s.write_env(s.env_file(), project() / ".env.example")
    made = f"random secrets for {', '.join(filled)}" if filled else "nothing to fill"
    sys.stdout.write(f"{s.env_file()}: {made}; keep it to yourself\n")
    return 0


def _start() -> int:
    from nbtrack.team import stack

    uri, remarks = stack.start()
    for remark in remarks:
        sys.stdout.write(f"{remark}\n")
    told = f"the accounts and their passwords are in {s.env_file()}"
    open_to_all = "MLFLOW_ENABLE_AUTH is off: whoever reaches the port may do everything"
    sys.stdout.write(f"MLflow serves at {uri}; {told if s.with_accounts(s.load()) else open_to_all}\n")
    return 0


def _stop() -> int:
    from nbtrack.team import stack

    stopped = stack.stop()
    text = f"stopped {' and '.join(stopped)}; data stay in {s.folder()}" if stopped else "nothing to stop"
    sys.stdout.write(f"{text}\n")
    return 0


def _status() -> int:
    from nbtrack.team import stack

    parts = stack.status()
    for part in parts:
        sys.stdout.write(f"{'ok  ' if part.well else 'BAD '} {part.name:<10} {part.text}\n")
    return 0 if all(part.well for part in parts) else 1


def _serve() -> int:
    from nbtrack.team.serve import serve

    serve(dict(os.environ))
    return 0
