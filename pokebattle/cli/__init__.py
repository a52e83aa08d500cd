"""The command line: this package's verbs, and those of `nbtrack`."""

from collections.abc import Sequence

from nbtrack import cli
from pokebattle.errors import UserError

OWN = {
    "train": "train a version by train.ipynb, for people who think in scripts",
    "retrain": "train, gate and promote a version without anybody watching, and write a report",
    "report": "show an executed notebook's result and the address of its run",
    "reference": "execute notebooks and store the outputs that nbval compares with",
    "adopt": "write what a search found into a new version",
    "predict": "say who wins a battle of two species, according to a registered model",
    "promote": "judge a registered version and move it to Staging or Production",
    "rollback": "return Production to the version before",
    "history": "show who moved which version where, when and why, and what does not agree",
    "gate": "judge a registered version by the gates of promotion",
    "reproduce": "execute a run again from its own record and compare the figures",
    "dex": "extract the game tables from the battle engine",
}
VERBS = cli.VERBS | OWN


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of `VERBS` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.
    """
    return cli.dispatch("pokebattle", {cli.__name__: cli.VERBS, __name__: OWN}, argv, (UserError,))
