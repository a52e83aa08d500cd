"""The command line: this package's verbs, and those of `nbtrack`."""

from nbtrack import cli
from pokebattle.errors import UserError

OWN = {
    "train": "Train a version from the command line",
    "retrain": "Train, judge and promote a version unattended, and write a report",
    "report": "Show the result of an executed notebook and the address of its run",
    "reference": "Execute notebooks and store the outputs that nbval compares with",
    "adopt": "Write what a search found into a new version",
    "predict": "Say who wins a battle of two species, according to a registered model",
    "promote": "Judge a registered version and move it to Staging or Production",
    "rollback": "Return Production to its previous version",
    "history": "Show who moved which version where, when and why, and inconsistencies",
    "gate": "Judge a registered version by the gates of promotion",
    "reproduce": "Execute a run again from its own record and compare the metrics",
    "dex": "Extract the game tables from the battle engine",
}
VERBS = cli.VERBS | OWN

main = cli.VerbGroup(
    "pokebattle", {cli.__name__: cli.VERBS, __name__: OWN}, "Predict who wins a Pokémon Let's Go battle.", (UserError,)
)
