"""The battles that versions are judged on before promotion: the gate part, fought anew with seeds that nobody knows."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pokebattle import engine, evaluation, splits
from pokebattle.battles import MATCHUP
from pokebattle.datasets import BattleSet, load_battles, open_part
from pokebattle.engine.arena import fresh_stream
from pokebattle.params import Params
from pokebattle.registry.stages import moment
from pokebattle.tracking.shipping.rest import MlflowRest

GATE = "gate"
FOUGHT = "v3"  # the set whose battles the engine can fight anew
FEWEST = 10  # pairs that tell something


@dataclass(frozen=True)
class Ground:
    """Battles that judge.

    Attributes
    ----------
    matchups : DataFrame
        In one orientation, with wins_a and n_battles.
    source : str
        Where the battles come from.
    """

    matchups: pd.DataFrame = field(repr=False)
    source: str

    @property
    def n_pairs(self) -> int:
        """Unordered pairs of species that there are."""
        return len(splits.distinct_pairs(self.matchups)[0]) if len(self.matchups) else 0

    def without(self, known: BattleSet) -> Ground:
        """Return what is left without the pairs that a train part has."""
        learned = set(splits.distinct_pairs(known.training)[0])
        new = ~splits.pair_ids(self.matchups).isin(learned)
        return Ground(self.matchups[new], self.source)


def battles_of(params: Params) -> BattleSet:
    """Return the battle set of a version; its parts that judge are sealed."""
    return load_battles(params.dataset, params.protocol, params.max_matchups, params.max_judging_pairs,
                        tables=params.tables)  # fmt: skip


def opened(rest: MlflowRest, run_id: str, battles: BattleSet) -> None:
    """Say on a run, before it is done, that the gate part is opened to judge it."""
    dataset = {"name": f"{battles.name}-{GATE}", "digest": battles.digest[:36], "source_type": "local",
               "source": f'{{"uri": "pokebattle/data/battles/{battles.name}"}}'}  # fmt: skip
    inputs = [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": GATE}]}]
    rest.call("POST", "runs/log-inputs", run_id=run_id, datasets=inputs)
    rest.call("POST", "runs/set-tag", run_id=run_id, key=f"pokebattle.opened.{GATE}", value=moment())


def gate_ground(battles: BattleSet, n_battles: int) -> Ground:
    """Return the gate part of a set: fought anew where the engine can, else as it is.

    Parameters
    ----------
    battles : BattleSet
    n_battles : int
        Fresh battles of each matchup; 0 for those of the set.
    """
    part = open_part(battles, GATE)
    source = "the set's own battles"
    if n_battles and battles.name == FOUGHT:
        try:
            part, source = _fought_anew(part, n_battles)
        except engine.EngineError as error:
            source = f"the set's own battles, as the engine cannot fight ({error})"
    return Ground(evaluation.single_orientation(part).reset_index(drop=True), source)


def common_ground(params: Params, own: Ground, rest: MlflowRest, run_id: str) -> Ground:
    """Return battles of the game for a version whose own are decided by a formula: the engine's, in the same part."""
    if params.dataset == FOUGHT:
        return own
    battles = load_battles(FOUGHT, params.protocol, 0, params.max_judging_pairs)
    opened(rest, run_id, battles)
    return gate_ground(battles, params.gates.fresh_battles)


def _fought_anew(part: pd.DataFrame, n_battles: int) -> tuple[pd.DataFrame, str]:
    stream = fresh_stream()
    with tempfile.TemporaryDirectory() as cache:
        fought = engine.fight(part[MATCHUP], n_battles, stream=stream, cache=Path(cache))
    return fought.drop(columns="turns"), f"fought anew, seeds of the stream {stream}"
