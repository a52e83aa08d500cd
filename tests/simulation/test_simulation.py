"""The simulator: battles by hand, mirrors, one row as of many, and the real engine's results."""

import subprocess
import sys

import numba
import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from pokebattle import engine
from pokebattle.game import attacks, dex, matchups
from pokebattle.learning import features
from pokebattle.simulation import estimates, simulate
from pokebattle.simulation.estimates import SIDES

MIRROR = {"species_a": "species_b", "species_b": "species_a", "move_a": "move_b", "move_b": "move_a"}
KNOWN = matchups.damaging_moves()
DAMAGING = dex.moves().query("category != 'status'").index
FIGHTERS = sorted(KNOWN)


def table(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=SIDES)


def drawn(n: int, seed: int, policy: str = "any") -> pd.DataFrame:
    """Draw matchups of two species with any of their damaging moves, or with random moves."""
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(FIGHTERS, 2, replace=False).tolist() for _ in range(n)]
    moves = [
        [matchups.RANDOM] * 2 if policy == "random" else [rng.choice(KNOWN[name]) for name in pair] for pair in pairs
    ]
    return table(*((a, str(x), b, str(y)) for (a, b), (x, y) in zip(pairs, moves, strict=True)))


@pytest.mark.parametrize(
    ("matchup", "wins", "turns", "left_a", "left_b"),
    [
        # 50 HP a turn, the level: Machop (145 HP) is faster than Geodude (115 HP) and wins in the third turn.
        (("machop", "seismictoss", "geodude", "seismictoss"), 1, 3, 45 / 145, 0),
        # Counter strikes last, with twice the 50: Machamp (165 HP) takes 2 hits, Machop (145 HP) 2 x 100.
        (("machamp", "counter", "machop", "seismictoss"), 1, 2, 65 / 165, 0),
        # It gives back physical damage, Night Shade is special. And Ghosts are immune to it.
        (("machamp", "counter", "gastly", "nightshade"), 0, 4, 0, 1),
        # Mirror Coat gives 2 x 40 back to Charmander (114 HP); Tentacruel has 155 HP.
        (("tentacruel", "mirrorcoat", "charmander", "dragonrage"), 1, 2, 75 / 155, 0),
        # Bide goes first, and in its third turn gives back twice 50 + 50: more than Geodude's 115 HP.
        (("geodude", "seismictoss", "machop", "bide"), 0, 3, 0, 45 / 145),
        # Fake Out works in the first turn only; then Machop (145 HP) needs three turns for Raichu (135 HP).
        (("raichu", "fakeout", "machop", "seismictoss"), 0, 4, 0, None),
        # A Ghost is immune to High Jump Kick, which then costs Hitmonlee 62 of its 125 HP; Night Shade takes 50.
        (("gengar", "nightshade", "hitmonlee", "highjumpkick"), 1, 2, 1, 0),
        # Neither sleeps, so Dream Eater never hits.
        (("alakazam", "dreameater", "machop", "seismictoss"), 0, 3, 0, 1),
        # Who makes itself faint has lost, also when the other one falls by it: that one fell last.
        (("electrode", "explosion", "geodude", "tackle"), 0, 1, 0, None),
        (("golem", "explosion", "abra", "seismictoss"), 0, 1, 0, None),
        # Who falls by recoil falls after its target, and has won: two hits of 50 leave 40 HP of Eevee's 140, and 33 %
        # of Hitmonchan's 125 HP are 41 HP or, rounded for two hits, 42.
        (("eeveestarter", "doubleedge", "hitmonchan", "seismictoss"), 1, 2, 0, 0),
    ],
)
def test_certain_battles_by_hand(matchup, wins, turns, left_a, left_b) -> None:
    """Rules as in the engine's moves.ts and battle.ts; stats are (2 * base + 31) / 2 and so on, see `battle_stats`."""
    got = simulate(table(matchup), 200).iloc[0]
    assert got["win_probability"] == wins
    for name, expected in (("turns", turns), ("hp_left_a", left_a), ("hp_left_b", left_b)):
        assert expected is None or got[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("matchup", "chance"),
    [
        # Both knock out with 30 %, Dugtrio goes first: 0.3 / (1 - 0.7 * 0.7).
        (("dugtrio", "fissure", "diglett", "fissure"), 0.3 / 0.51),
        # Equally fast, and either knocks the other out with its first hit, which never misses.
        (("graveler", "earthquake", "omanyte", "surf"), 0.5),
    ],
)
def test_chances_by_hand(matchup, chance) -> None:
    n = 100_000
    got = simulate(table(matchup), n).iloc[0]
    assert got["win_probability"] == pytest.approx(chance, abs=5 * 0.5 / np.sqrt(n))


def test_damage_is_the_formula() -> None:
    """The least and the most HP that first hits take, against `attacks.hit_damage`."""
    from pokebattle.simulation.records import tables
    from pokebattle.simulation.simulator import damage

    game, rng = tables(), np.array([7], dtype=np.uint64)
    rows = drawn(24, 3)
    expected, _ = attacks.hit_damage(attacks.attacks(rows["species_a"], rows["move_a"], rows["species_b"]))
    for (a, move, b, _), points in zip(rows.to_numpy(), expected, strict=True):
        user, target = (game.fighters[game.species_ids.get_loc(name)] for name in (a, b))
        used = game.moves[game.move_ids.get_loc(move)]
        multiplier = game.effectiveness[used["type"], target["species"]]
        if used["rule"] != 0 or multiplier == 0:
            continue  # decided by the course of the battle, or before the damage
        got = {damage(user, target, used, multiplier, rng) for _ in range(4000)}
        assert got == set(points[:16] if used["critical_chance"] == 0 else points), (a, move, b)


def test_the_compiled_rules_have_the_same_constants() -> None:
    """Compiled code cannot import them: numba's cache would not notice a change."""
    from pokebattle.simulation import records, simulator

    thresholds = np.cumsum(attacks.HITS_OF_2_TO_5)[:-1]
    assert matchups.LEVEL == simulator.LEVEL
    assert pytest.approx(thresholds) == simulator.HIT_THRESHOLDS
    assert pytest.approx(100 * attacks.SELF_HIT) == simulator.CONFUSION_CHANCE
    assert attacks.BURN == simulator.BURN_SHARE
    assert {attacks.WEAR} == {simulator.POISON_SHARE, simulator.SEED_SHARE, simulator.TRAP_SHARE}
    psywave = np.arange(simulator.PSYWAVE_LEAST, simulator.PSYWAVE_MOST + 1) * simulator.LEVEL // 100
    assert attacks.PSYWAVE.tolist() == psywave.tolist()
    assert attacks.ROLLS.tolist() == list(range(simulator.ROLL_LEAST, simulator.ROLL_MOST + 1))
    order = [getattr(simulator, name.upper()) for name in matchups.STATS]
    assert order == list(range(len(matchups.STATS)))
    assert set(records.FLAGS) == {*features.FLAGS, "uses_target_attack"}


def test_a_mirrored_matchup_has_mirrored_numbers() -> None:
    rows = pd.concat([drawn(60, 0), drawn(20, 1, "random"), table(("mew", "surf", "mew", "surf"))], ignore_index=True)
    got, mirrored = (simulate(frame, 101) for frame in (rows, rows.rename(columns=MIRROR)))
    assert (got["win_probability"] + mirrored["win_probability"] == 1).all()
    assert (mirrored["win_probability"] == 1 - got["win_probability"]).all()
    assert (got["turns"] == mirrored["turns"]).all()
    assert (got[["hp_left_a", "hp_left_b"]].to_numpy() == mirrored[["hp_left_b", "hp_left_a"]].to_numpy()).all()
    assert got["win_probability"].iloc[-1] == 0.5


def test_a_row_depends_on_its_matchup_and_the_seed_alone() -> None:
    rows = pd.concat([drawn(30, 0), drawn(10, 1, "random")], ignore_index=True)
    rows.index = [f"row {number}" for number in range(len(rows))]
    got = simulate(rows, 100)
    shuffled = rows.sample(2 * len(rows), replace=True, random_state=0)
    pd.testing.assert_frame_equal(simulate(shuffled, 100), got.loc[shuffled.index])
    for name in rows.index[[0, 17, 39]]:
        pd.testing.assert_frame_equal(simulate(rows.loc[[name]], 100), got.loc[[name]])
    assert (simulate(rows, 100, random_state=1) != got).to_numpy().any()


def test_threads_change_nothing(monkeypatch) -> None:
    rows = pd.concat([drawn(30, 0), drawn(10, 1, "random")], ignore_index=True)
    got = simulate(rows, 100)
    monkeypatch.setattr(estimates, "TURN", 3)
    for n_threads in (1, 4):
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", n_threads)
        pd.testing.assert_frame_equal(simulate(rows, 100), got)


def test_more_simulations_agree_with_fewer() -> None:
    rows = drawn(200, 5)
    few, many = (simulate(rows, n, random_state=n)["win_probability"] for n in (500, 4000))
    error = np.sqrt((many * (1 - many)).clip(1 / 4000) * (1 / 500 + 1 / 4000))
    assert ((few - many).abs() < 5 * error).all() and (few != many).any()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("missingno", "surf", "mew", "surf"), "species: .*missingno"),
        (("mew", "surf", "mew", "growl"), "move: .*growl"),
        (("mew", "surf", "ditto", "random"), "move: .*damaging"),
    ],
)
def test_unknown_ids_are_refused(row, message) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(table(row), 10)
    with pytest.raises(ValueError, match="n_simulations"):
        simulate(table(("mew", "surf", "mew", "psychic")), 0)


def test_nothing_is_compiled_before_it_is_needed() -> None:
    code = "import sys, pokebattle.simulation; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def open_matchups() -> pd.DataFrame:
    """Return a matchup for every damaging move, of some that were drawn the one whose outcome is most open."""
    rng = np.random.default_rng(20)
    users = {move: [name for name in FIGHTERS if move in KNOWN[name]] for move in DAMAGING}
    rows = [
        (str(rng.choice(users[move])), move, other, str(rng.choice([*KNOWN[other], matchups.RANDOM])))
        for move in DAMAGING
        for other in map(str, rng.choice(FIGHTERS, 40))
    ]
    tried = table(*rows)
    tried["distance"] = (simulate(tried, 64)["win_probability"] - 0.5).abs()
    return tried.loc[tried.groupby("move_a")["distance"].idxmin(), SIDES]


@pytest.mark.usefixtures("installed_engine")
def test_shares_agree_with_the_engine(tmp_path) -> None:
    """Every damaging move, and both sides drawing: shares of wins in two samples, by a test of chi-square."""
    rows = pd.concat([open_matchups(), drawn(20, 8, "random")], ignore_index=True)
    n, n_engine = 4000, 80
    ours = np.round(simulate(rows, n)["win_probability"].to_numpy() * n)
    theirs = engine.fight(rows, n_engine, stream="training", cache=tmp_path)["wins_a"].to_numpy()
    pooled = (ours + theirs) / (n + n_engine)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / n_engine))
    either = spread > 0
    z = (ours / n - theirs / n_engine)[either] / spread[either]
    assert set(rows["move_a"]) >= set(DAMAGING) and either.sum() > 140
    assert (z**2).sum() < chi2.ppf(0.999, len(z)) and np.abs(z).max() < 4.5
