"""``python -m nbtrack.team.write_env``: what `make env` runs. Standard library only, for machines with only Docker."""

import sys

from nbtrack.paths import project
from nbtrack.team import settings as s


def write() -> str:
    """Write the settings file from ``.env.example`` and return what was done; existing values are kept.

    Raises
    ------
    SettingsError
        If there is nothing to write it from.
    """
    filled = s.write_env(s.env_file(), project() / ".env.example")
    made = f"random secrets for {', '.join(filled)}" if filled else "nothing to fill"
    return f"{s.env_file()}: {made}; do not share or commit it"


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{write()}\n")
    except (s.SettingsError, OSError) as error:
        sys.exit(f"Error: {error}")
