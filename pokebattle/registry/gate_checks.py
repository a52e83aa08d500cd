"""Measure the gates of one registered version."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from xgboost.core import XGBoostError

from nbtrack.mlflow_rest import MlflowRest, ServerError, params_of, tags_of
from pokebattle import evaluation, params
from pokebattle.datasets import OWN, BattleSet, DatasetError, leaks, splits
from pokebattle.datasets.csv_reader import TablesError
from pokebattle.game.matchups import MATCHUP
from pokebattle.learning.baselines import baselines
from pokebattle.learning.features import mirror
from pokebattle.model import BattleWinner
from pokebattle.params import Gates, Params, ParamsError
from pokebattle.registry import judging_set, model_files, reproduction, smoke_test
from pokebattle.registry.gate_report import NOT_APPLICABLE, PASSED, REFUSED, UNKNOWN, Gate
from pokebattle.registry.judging_set import FEWEST, JudgingSet
from pokebattle.registry.run_artifacts import read_json
from pokebattle.registry.stages import PRODUCTION, Model, RegistryError, Version

ASKED = 20  # matchups that the fresh process predicts, one by one
SLACK = 20  # the fresh process is ended after this multiple of the bound on the time to the first answer
LOOKED_AT = 3000  # matchups of the training part whose features are checked for leaks
ROUNDING = 1e-9  # tolerated difference between predictions for single matchups and for many at once
GAIN = ["gain", "low", "high"]  # of `evaluation.paired_gain`
Row = tuple[str, str, str]  # measured, bound, verdict
UNUSABLE = (DatasetError, TablesError, ParamsError)  # errors that mean the battles are not available


class MissingError(Exception):
    """Something that a gate needs is not available, so the gate cannot be measured."""


class NotApplicableError(Exception):
    """A gate does not apply to this version."""


class GateChecks:
    """One registered version and everything that its gates need. Files, battles and model are loaded on first use.

    Parameters
    ----------
    rest : MlflowRest
    registered : Model
        The registered model with all its versions.
    version : Version
        The version to judge.
    folder : Path
        An empty folder for downloaded files.

    Raises
    ------
    RegistryError
        If the version's run is gone, or its recorded parameters are missing or not valid any more.
    ServerError, OSError
        If the server does not answer, or refuses a request of this account.
    """

    def __init__(self, rest: MlflowRest, registered: Model, version: Version, folder: Path) -> None:
        self.rest, self.registered, self.version, self.folder = rest, registered, version, folder
        title = f"{registered.name} version {version.number}"
        try:
            self.run: dict[str, Any] = rest.call("GET", "runs/get", run_id=version.run_id)["run"]
            self.params: Params = params.recorded(read_json(rest, self.run, "parameters.json"))
        except ServerError as error:
            if error.denied or not error.permanent:
                raise
            raise RegistryError(f"{title} cannot be judged: its run {version.run_id or ''} does not exist") from None
        except (ParamsError, FileNotFoundError, ValueError) as error:
            raise RegistryError(f"{title} cannot be judged from its run's record: {error}") from None

    @property
    def judged_on(self) -> str:
        """Return a sentence about the battles on which the version was judged; "" before they are loaded."""
        battles = self.__dict__.get("judging_set")
        if battles is None:
            return ""
        n = int(battles.matchups["n_battles"].sum()) if len(battles.matchups) else 0
        return f"On {battles.n_pairs:,} pairs of species, {n:,} battles: {battles.source}."

    def measured(self) -> Iterator[Gate]:
        """Yield every gate as soon as it is measured."""
        for name, measure in {
            "no leak": self.leak,
            "clean commit": self.clean,
            "ahead of baselines": self.ahead,
            "calibration": self.calibration,
            "not behind Production": self.production,
            "mirrored": self.mirrored,
            "loads and answers": self.loads,
            "executed again": self.executed_again,
        }.items():
            try:
                yield Gate(name, *measure())
            except leaks.LeakError as error:
                yield Gate(name, str(error), "", REFUSED)
            except MissingError as error:
                yield Gate(name, str(error), "", UNKNOWN)
            except NotApplicableError as error:
                yield Gate(name, str(error), "", NOT_APPLICABLE)

    # -- the version's files, battles and model ------------------------------------------------------

    @property
    def bounds(self) -> Gates:
        """Return the bounds from the version's file in params/."""
        return self.params.gates

    @cached_property
    def files(self) -> model_files.ModelFiles:
        """Return the checked files of the model.

        Raises
        ------
        MissingError
            If `model_files.fetch` refuses them.
        """
        try:
            return model_files.fetch(self.rest, self.version, self.registered.name, self.folder)
        except model_files.ForeignModelError as error:
            raise MissingError(str(error).removeprefix("model: ")) from None

    @cached_property
    def battles(self) -> BattleSet:
        """Return the battle set that the version was trained on. This does not open its test and gate parts.

        Raises
        ------
        MissingError
            If the set cannot be loaded, or its digest differs from the recorded one.
        """
        try:
            battles = judging_set.battles_of(self.params)
        except UNUSABLE as error:
            raise MissingError(f"its battles cannot be loaded: {error}") from None
        recorded = params_of(self.run)
        if recorded.get("dataset_digest") != battles.digest:
            raise MissingError(
                f"its battles have changed: digest {recorded.get('dataset_digest')} when it was trained, "
                f"here {battles.digest}"
            )
        return battles

    @cached_property
    def judging_set(self) -> JudgingSet:
        """Return the gate battles of its own set. The opening of the gate part is recorded first."""
        judging_set.opened(self.rest, self.run["info"]["run_id"], self.battles)
        return judging_set.gate_battles(self.battles, self.bounds.fresh_battles)

    @cached_property
    def model(self) -> BattleWinner:
        """Return the model. It is loaded in a separate process first, because a damaged file can kill the process.

        Raises
        ------
        MissingError
            If the model cannot be loaded.
        """
        if error := self._probed.get("error"):
            raise MissingError(error)
        return _load(self.files.folder)

    def model_and_battles(self) -> tuple[BattleWinner, BattleSet]:
        """Return the model and its battles, or raise a MissingError if one of them is not available."""
        return self.model, self.battles

    @cached_property
    def predicted(self) -> np.ndarray:
        """Return the model's P(A wins) on the gate battles."""
        self._enough(self.judging_set)
        return self.model.predict_proba(self.judging_set.matchups)[:, 1]

    def _enough(self, battles: JudgingSet) -> None:
        if battles.n_pairs < FEWEST:
            raise NotApplicableError(
                f"{battles.n_pairs} pairs of species are in its gate part; at least {FEWEST} are needed"
            )

    @property
    def _bootstrap(self) -> dict[str, Any]:
        """Return the bootstrap's arguments. Families are resampled if the protocol holds out whole families."""
        families = None if self.params.protocol == "pair" else self.battles.families
        return {"n_bootstrap": self.params.n_bootstrap, "random_state": self.params.random_state, "families": families}

    @cached_property
    def _probed(self) -> dict[str, Any]:
        """Return the measurements of a fresh process that loads the model, or {"error": why it failed}."""
        training = self.battles.training
        asked = training[[name for name in MATCHUP if name in training]].head(ASKED)
        return smoke_test.ask(self.files.folder, asked, self.bounds.load_seconds * SLACK)

    # -- the gates: measured value, bound, verdict ---------------------------------------------------

    def leak(self) -> Row:
        """Check that parts share no pair and no unseen family, and that no feature follows the results too closely."""
        training = splits.subset(self.battles.training, LOOKED_AT)
        features = self.model.features_
        closest = leaks.check_columns(
            features.both_orientations(training)[0], self.model.feature_names, training["wins_a"], training["n_battles"]
        )["follows_result"]
        return (
            f"0 shared pairs; correlation of {closest.index[0]} with the result {closest.iloc[0]:.3f}",
            f"0; below {leaks.MAX_CORRELATION} (battles without chance: {leaks.MAX_ROC_AUC})",
            PASSED,
        )

    def clean(self) -> Row:
        """Check that the notebook ran from top to bottom, from a clean commit, and FINISHED."""
        tags = tags_of(self.run)
        order, commit = tags.get("pokebattle.order", "order unknown"), tags.get("mlflow.source.git.commit", "")
        state = {"false": "clean", "true": "dirty"}.get(tags.get("pokebattle.git.dirty", ""), "unknown state")
        status = self.run["info"]["status"]
        good = order == "top to bottom" and commit and state == "clean" and status == "FINISHED"
        return (
            f"{order}; {f'commit {commit[:10]}, {state}' if commit else 'no commit'}; {status}",
            "top to bottom; a clean commit; FINISHED",
            PASSED if good else REFUSED,
        )

    def ahead(self) -> Row:
        """Check that the log-loss is below that of every baseline, by the low end of the 95 % interval."""
        predicted, matchups = self.predicted, self.judging_set.matchups
        rivals = baselines(self.battles.training, matchups, species=self.battles.species)
        rows = {name: self._gain(matchups, p, predicted) for name, p in rivals.items()}
        name, gain = min(rows.items(), key=lambda row: row[1]["low"])
        bound = self.bounds.ahead_of_baselines
        return (
            f"{_interval(gain)} nats ahead of {name}, the closest of {len(rows)}",
            f"low end above {bound:g}",
            PASSED if gain["low"] > bound else REFUSED,
        )

    def calibration(self) -> Row:
        """Check the calibration error."""
        figures = evaluation.all_metrics(self.judging_set.matchups, self.predicted, n_bins=self.params.calibration_bins)
        error, bound = figures["calibration_error"].iloc[0], self.bounds.calibration_error
        return f"{error:.4f}", f"at most {bound:g}", PASSED if error <= bound else REFUSED

    def production(self) -> Row:
        """Check that the log-loss is at most the bound worse than Production's, on pairs new to both versions.

        Raises
        ------
        NotApplicableError
            If there is no other version in Production, or the two versions cannot be compared.
        MissingError
            If too few pairs are in neither version's training part.
        """
        holder = self.registered.holder(PRODUCTION)
        if holder in (None, self.version.number):
            raise NotApplicableError("no other version is in Production")
        other = self._rival(holder)
        battles = self.judging_set
        if other.params.dataset != self.params.dataset:
            battles = judging_set.common_battles(self.params, battles, self.rest, self.run["info"]["run_id"])
        shared = battles.without(other.battles).without(self.battles)
        if shared.n_pairs < FEWEST:
            raise MissingError(f"{shared.n_pairs} pairs of species are new to it and to version {holder} in Production")
        try:
            before = other.model.predict_proba(shared.matchups)[:, 1]
        except ValueError as error:
            raise NotApplicableError(f"version {holder} in Production was trained on other species ({error})") from None
        gain = self._gain(shared.matchups, before, self.model.predict_proba(shared.matchups)[:, 1])
        bound = self.bounds.behind_production
        return (
            f"{_interval(gain)} nats ahead of version {holder}, {shared.n_pairs:,} pairs",
            f"low end at least {-bound:g}",
            PASSED if gain["low"] >= -bound else REFUSED,
        )

    def _rival(self, number: int) -> GateChecks:
        """Return the version in Production, or raise a NotApplicableError if it cannot be compared."""
        folder = self.folder / "production"
        folder.mkdir(exist_ok=True)
        try:
            other = GateChecks(self.rest, self.registered, self.registered.version(number), folder)
            if (other.params.dataset == OWN) != (self.params.dataset == OWN):
                raise MissingError("it was trained on other species")
            other.model_and_battles()
        except (RegistryError, MissingError) as error:
            raise NotApplicableError(f"version {number} in Production cannot be compared: {error}") from None
        return other

    def mirrored(self) -> Row:
        """Check that the probabilities of a matchup and of the swapped matchup add up to 1."""
        back = self.model.predict_proba(mirror(self.judging_set.matchups))[:, 1]
        error, bound = float(np.abs(self.predicted + back - 1).max()), self.bounds.mirror_error
        return f"at most {error:.1e} from 1", f"at most {bound:.0e}", PASSED if error <= bound else REFUSED

    def loads(self) -> Row:
        """Check time and memory of a fresh process, and that its single predictions equal those for many at once."""
        measured, bounds = self._probed, self.bounds
        bound = f"at most {bounds.load_seconds:g} s, {bounds.answer_ms:g} ms, {bounds.memory_mb:g} MB"
        if "error" in measured:
            return measured["error"], bound, REFUSED
        training = self.battles.training.head(len(measured["answers"]))
        apart = float(np.abs(self.model.predict_proba(training)[:, 1] - measured["answers"]).max())
        ms = float(np.median(measured["ms"]))
        good = (
            measured["seconds"] <= bounds.load_seconds
            and ms <= bounds.answer_ms
            and measured["memory_mb"] <= bounds.memory_mb
            and apart <= ROUNDING
        )
        alone = "" if apart <= ROUNDING else f"; single answers differ by up to {apart:.1e}"
        return (
            f"{measured['seconds']:.1f} s, {ms:.1f} ms, {measured['memory_mb']:.0f} MB{alone}",
            bound,
            PASSED if good else REFUSED,
        )

    def executed_again(self) -> Row:
        """Check that the run gives the same metrics when it is executed again from its own record."""
        again = reproduction.reproduce(self.run["info"]["run_id"], self.rest)
        return again.text, "the same metrics", PASSED if again.same else REFUSED

    def _gain(self, matchups: pd.DataFrame, before: np.ndarray, after: np.ndarray) -> dict[str, float]:
        table = evaluation.paired_gain(matchups, before, after, **self._bootstrap)
        return dict(zip(GAIN, table.loc[["log_loss"], GAIN].to_numpy(float)[0], strict=True))


def _load(folder: Path) -> BattleWinner:
    try:
        return BattleWinner.load(folder)
    except (ValueError, TypeError, KeyError, XGBoostError) as error:
        raise MissingError(f"the model cannot be loaded: {' '.join(str(error).split())[:300]}") from None


def _interval(gain: dict[str, float]) -> str:
    return f"{gain['gain']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
