"""``python -m pokebattle predict venusaur blastoise``: who wins, according to a registered model."""

import click

from nbtrack.cli import Choice
from pokebattle.prediction import POLICIES, predict
from pokebattle.registry import promotion
from pokebattle.registry.loading import load_version
from pokebattle.registry.stages import NAME


@click.command("predict")
@click.argument("species_a", help="A name or id, such as Charizard-Mega-X or charizardmegax.")
@click.argument("species_b", help="Its opponent.")
@click.option(
    "--policy", type=Choice(POLICIES), default=POLICIES[0], show_default=True, help="How both choose their moves."
)
@click.option(
    "--model",
    default=NAME,
    show_default=True,
    metavar="NAME[/VERSION]",
    help="A registered model or version; without a version, the one in Production, else in Staging, else the latest.",
)
def command(species_a: str, species_b: str, policy: str, model: str) -> int:
    """Say who wins a battle of two species, according to a registered model."""
    with promotion.connected(model) as rest:
        loaded = load_version(model, rest)
    prediction = predict(loaded.model, species_a, species_b, policy)
    click.echo(f"{prediction.species_a} beats {prediction.species_b} in {prediction.win_probability:.1%} of battles")
    if prediction.move_a:
        moves = f"{prediction.species_a} uses {prediction.move_a}, {prediction.species_b} uses {prediction.move_b}"
        click.echo(f"{moves}; both are at level 50")
    error, version = loaded.calibration_error, loaded.version
    quality = "" if error is None else f"; its calibration error on the test part is {error:.1%}"
    click.echo(f"model: {loaded.name} version {version.number}, stage {version.stage}{quality}")
    return 0
