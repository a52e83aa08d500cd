"""The battles for judging a version: the gate part, fought again by the engine with unpredictable seeds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nbtrack.mlflow_rest import MlflowRest, dataset_input
from nbtrack.tags import OPENED
from pokebattle import engine, evaluation
from pokebattle.datasets import BattleSet, load_battles, open_part, splits
from pokebattle.engine.run_battles import fresh_stream
from pokebattle.game.matchups import MATCHUP
from pokebattle.params import Params
from pokebattle.registry.stages import moment

GATE = "gate"
FOUGHT = "v3"  # the set whose battles the engine can fight again
FEWEST = 10  # minimal number of pairs for a meaningful comparison


@dataclass(frozen=True)
class JudgingSet:
    """Battles for judging a version.

    Attributes
    ----------
    matchups : DataFrame
        In one orientation, with wins_a and n_battles.
    source : str
        Where the battles come from, for the report.
    """

    matchups: pd.DataFrame = field(repr=False)
    source: str

    @property
    def n_pairs(self) -> int:
        """Return the number of distinct unordered pairs of species."""
        return len(splits.distinct_pairs(self.matchups)[0]) if len(self.matchups) else 0

    def without(self, known: BattleSet) -> JudgingSet:
        """Return the battles between pairs that are not in the training part of a set.

        Parameters
        ----------
        known : BattleSet
        """
        learned = set(splits.distinct_pairs(known.training)[0])
        new = ~splits.pair_ids(self.matchups).isin(learned)
        return JudgingSet(self.matchups[new], self.source)


def battles_of(params: Params) -> BattleSet:
    """Load the battle set of a version. This does not open its test and gate parts.

    Parameters
    ----------
    params : Params

    Raises
    ------
    DatasetError, TablesError, LeakError
        As in `datasets.load_battles`.
    """
    return load_battles(
        params.dataset, params.protocol, params.max_matchups, params.max_judging_pairs, tables=params.tables
    )


def opened(rest: MlflowRest, run_id: str, battles: BattleSet) -> None:
    """Record on a run that the gate part is opened to judge it. Call it before opening the part.

    Parameters
    ----------
    rest : MlflowRest
    run_id : str
    battles : BattleSet
        The set whose gate part is opened.

    Raises
    ------
    OSError, ServerError
        If the server does not answer, or refuses the request.
    """
    part = dataset_input(battles.name, battles.digest, f"pokebattle/data/battles/{battles.name}", GATE)
    rest.call("POST", "runs/log-inputs", run_id=run_id, datasets=[part])
    rest.call("POST", "runs/set-tag", run_id=run_id, key=f"{OPENED}{GATE}", value=moment())


def gate_battles(battles: BattleSet, n_battles: int) -> JudgingSet:
    """Return the gate part of a set: fought again if the engine can, else with the set's own battles.

    Parameters
    ----------
    battles : BattleSet
    n_battles : int
        New battles of each matchup; 0 to use the set's own battles.
    """
    part = open_part(battles, GATE)
    source = "the set's own battles"
    if n_battles and battles.name == FOUGHT:
        try:
            part, source = _fought_again(part, n_battles)
        except engine.EngineError as error:
            source = f"the set's own battles, because the engine cannot fight ({error})"
    return JudgingSet(evaluation.single_orientation(part).reset_index(drop=True), source)


def common_battles(params: Params, own: JudgingSet, rest: MlflowRest, run_id: str) -> JudgingSet:
    """Return battles of the game to compare versions that were trained on different data.

    Parameters
    ----------
    params : Params
        The version that is judged.
    own : JudgingSet
        Its own gate battles. They are returned if the version was trained on the engine's set; otherwise the engine's
        gate part under the same protocol is opened.
    rest : MlflowRest
    run_id : str
        The version's run, on which the opening is recorded.

    Raises
    ------
    DatasetError, OSError, ServerError
        As in `datasets.load_battles` and `opened`.
    """
    if params.dataset == FOUGHT:
        return own
    battles = load_battles(FOUGHT, params.protocol, 0, params.max_judging_pairs)
    opened(rest, run_id, battles)
    return gate_battles(battles, params.gates.fresh_battles)


def _fought_again(part: pd.DataFrame, n_battles: int) -> tuple[pd.DataFrame, str]:
    stream = fresh_stream()
    with tempfile.TemporaryDirectory() as cache:
        fought = engine.fight(part[MATCHUP], n_battles, stream=stream, cache=Path(cache))
    return fought.drop(columns="turns"), f"fought again, with seeds of the stream {stream}"
