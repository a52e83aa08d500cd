"""The real engine: one result whatever the workers, the order, the interruptions; quick as plain; the game's damage."""

import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import psutil
import pytest
from waiting import wait_for

from pokebattle import datasets, engine
from pokebattle.engine import dask_workers, installation, process, run_battles
from pokebattle.engine.process import EngineProcess
from pokebattle.game import dex, matchups

SECONDS = 120.0  # that starting and ending workers may take here
SWAPPED = {"species_a": "species_b", "species_b": "species_a", "move_a": "move_b", "move_b": "move_a"}
pytestmark = pytest.mark.usefixtures("installed_engine")


@pytest.fixture
def few() -> pd.DataFrame:
    """Return matchups that are open: both sides win some."""
    pairs = [
        ("beedrillmega", "gyaradosmega"),
        ("fearow", "seaking"),
        ("graveleralola", "kabuto"),
        ("cubone", "flareon"),
        ("chansey", "ivysaur"),
        ("golemalola", "marowakalola"),
    ]
    table = matchups.matchups().set_index(["species_a", "species_b"]).loc[pairs].reset_index()
    return table[matchups.MATCHUP]


def fight(table, tmp_path, n_battles=30, **options):
    return engine.fight(table, n_battles, **{"stream": "training", "cache": tmp_path} | options)


def test_the_result_does_not_depend_on_workers_or_order(few, tmp_path, monkeypatch):
    monkeypatch.setattr(run_battles, "CHUNK_BATTLES", 30)
    alone = fight(few, tmp_path / "1", n_workers=1)
    assert fight(few, tmp_path / "2", n_workers=2).equals(alone)
    mixed = few.sample(frac=1, random_state=1)
    assert fight(mixed, tmp_path / "3", n_workers=2).loc[few.index].equals(alone)
    assert alone["wins_a"].between(3, 27).all()
    assert (alone["turns"] >= 1).all()


def test_a_battle_depends_on_its_repetition_and_stream(few, tmp_path):
    hundred, ten = fight(few, tmp_path, 100), fight(few, tmp_path, 10)
    assert (ten["wins_a"] <= hundred["wins_a"]).all()  # the first ten of the same battles
    other = fight(few, tmp_path, 100, stream="test")
    assert not other["wins_a"].equals(hundred["wins_a"])


def test_swapped_sides_have_mirrored_chances(few, tmp_path):
    forth, back = fight(few, tmp_path, 200), fight(few.rename(columns=SWAPPED), tmp_path, 200)
    difference = np.abs(forth["wins_a"] + back["wins_a"] - 200)
    assert (difference <= 40).all()  # four standard deviations of two counts of 200


def test_an_interrupted_run_continues(few, tmp_path, monkeypatch):
    monkeypatch.setattr(run_battles, "CHUNK_BATTLES", 30)
    whole = fight(few, tmp_path / "whole")
    fight(few[:4], tmp_path / "cache")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    reported = []
    assert fight(few, tmp_path / "cache", progress=reported.append).equals(whole)
    assert reported == [120, 30, 30]
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())


def test_another_engine_or_program_does_not_read_the_cache(few, monkeypatch):
    request = next(run_battles._requests(few, np.full(len(few), 10), "training"))
    keys = {
        run_battles._key(request),
        run_battles._key(request | {"stream": "gate"}),
        run_battles._key(request | {"pools": {}}),
    }
    monkeypatch.setattr(process, "VERSION", "0.0.0")
    keys.add(hash_of(request))
    monkeypatch.setattr(process, "PROGRAMS", ("worker.js",))
    keys.add(hash_of(request))
    assert len(keys) == 5


def hash_of(request):
    process.fingerprint.cache_clear()
    try:
        return run_battles._key(request)
    finally:
        process.fingerprint.cache_clear()


def every_damaging_move() -> pd.DataFrame:
    """Return a matchup for each: its first user against a side with another one, and for each draw something."""
    known = matchups.damaging_moves()
    users = {move: species for species in sorted(known, reverse=True) for move in known[species]}
    moves, fighters = sorted(users), sorted(known)
    rng = np.random.default_rng(0)
    others = rng.choice(fighters, len(moves))
    fixed = [(users[move], move, other, rng.choice(known[other])) for move, other in zip(moves, others, strict=True)]
    drawn = [(*rng.choice(fighters, 1), matchups.RANDOM, other, matchups.RANDOM) for other in others[:60]]
    mixed = [(user, matchups.RANDOM, *rest) for user, _, *rest in fixed[::4]]
    return pd.DataFrame([*fixed, *drawn, *mixed], columns=run_battles.SIDES)


def test_every_battle_ends_as_in_the_untouched_engine():
    """Winner, turns, HP left on both sides and the generator's last state."""
    request = run_battles._request(every_damaging_move(), 2, "test") | {"ends": True}
    with EngineProcess() as engine_process:
        quick, plain = engine_process.ask(request), engine_process.ask(request | {"plain": True})
    ends = [tuple(end) for matchup in plain["ends"] for end in matchup]
    assert len(ends) == 2 * (157 + 60 + 40)
    assert quick == plain
    assert len(set(ends)) == len(ends)  # no two generators end in one state
    assert {end[0] for end in ends} == {"A", "B"}
    assert {end[1] for end in ends} >= {1, 2, 3, 4, 5}


def test_a_side_draws_its_usable_damaging_moves_evenly():
    pool = matchups.damaging_moves()["bulbasaur"]
    logs = engine.battle_logs("bulbasaur", matchups.RANDOM, "chansey", "doubleslap", 300)
    names = dex.moves().loc[pool, "name"].tolist()
    first = Counter(next(line.split("|")[3] for line in log if line.startswith("|move|p1a")) for log in logs)
    assert set(first) == set(names)
    expected = len(logs) / len(pool)
    assert sum((first[name] - expected) ** 2 / expected for name in names) < 2 * len(pool)  # chi-square
    used = {line.split("|")[3] for log in logs for line in log if line.startswith("|move|p2a")}
    assert used == {"Double Slap"}


def test_a_charging_move_is_finished_and_a_recharge_waited_for():
    counts = Counter()
    for log in engine.battle_logs("venusaur", matchups.RANDOM, "chansey", "pound", 40):
        moves = [line for line in log if line.startswith(("|move|p1a", "|cant|p1a", "|-prepare|p1a"))]
        for before, after in itertools.pairwise(moves):
            if before.startswith("|-prepare|"):
                counts["charged"] += 1
                assert after.split("|")[3] == before.split("|")[3] or after.startswith("|cant|")
            if "|Hyper Beam|" in before and "[miss]" not in before and "[still]" not in before:
                counts["recharged"] += 1
                assert after.startswith("|cant|p1a: A|recharge") or after.endswith("|recharge")
    assert min(counts["charged"], counts["recharged"]) > 5


def hits(log: list[str], hp: dict[str, int]):
    """Yield (side that hits, HP taken, critical, knocked out) of the plain hits in a log."""
    side, critical, shown = "", False, ""
    for line in log:
        match line.split("|")[1:]:
            case ["move", user, *_]:
                side, critical = user[:2], False
            case ["-crit", *_]:
                critical = True
            case ["split", owner]:
                shown = owner  # the next line shows exact HP, the one after that percent
            case ["-damage" | "-heal", target, condition, *source] if shown == target[:2]:
                left, shown = int(condition.split("/")[0].split()[0]), ""
                if not source and target[:2] != side:
                    yield side, hp[target[:2]] - left, critical, left == 0
                hp[target[:2]] = left


def test_the_damage_formula_predicts_every_hit():
    stats, moves = matchups.battle_stats(), dex.moves()
    pairs = [
        ("lapras", "icebeam", "snorlax", "bodyslam"),
        ("vileplume", "sludgebomb", "machamp", "brickbreak"),
        ("arcanine", "flareblitz", "blastoisemega", "surf"),
        ("pinsir", "xscissor", "golem", "rockslide"),
    ]
    n_hits = 0
    for species_a, move_a, species_b, move_b in pairs:
        possible = {}
        forth, back = ("p1", species_a, move_a, species_b), ("p2", species_b, move_b, species_a)
        for side, attacker, name, defender in (forth, back):
            move = moves.loc[name]
            prefix = "special_" if move["category"] == "special" else ""
            attack, defense = stats.loc[attacker, prefix + "attack"], stats.loc[defender, prefix + "defense"]
            factors = [
                float(rule([move["type"]], [species])[0])
                for rule, species in ((matchups.same_type_bonus, attacker), (matchups.type_effectiveness, defender))
            ]
            for critical in (False, True):
                rolls = np.arange(85, 101)
                points = matchups.damage(move["base_power"], attack, defense, *factors, rolls, critical)
                possible[side, critical] = set(points.tolist())
        for log in engine.battle_logs(species_a, move_a, species_b, move_b, 15):
            if any("|brn" in line for line in log):
                continue  # a burn halves physical damage
            hp = {"p1": int(stats.loc[species_a, "hp"]), "p2": int(stats.loc[species_b, "hp"])}
            for side, taken, critical, out in hits(log, hp):
                n_hits += 1
                known = possible[side, critical]
                assert taken in known or (out and taken <= max(known)), (species_a, species_b, taken, known)
    assert n_hits > 100


def test_a_side_without_power_points_struggles():
    (log,) = engine.battle_logs("caterpie", "tackle", "gastly", "dreameater")
    used = [line.split("|")[3] for line in log if line.startswith("|move|p2a")]
    assert used[:24] == ["Dream Eater"] * 24  # 15 PP, which the engine's PP Ups make 24
    assert set(used[24:]) == {"Struggle"}


def test_who_faints_last_wins_a_double_knock_out(tmp_path):
    table = pd.DataFrame([["electrode", "explosion", "abra", "psychic"]], columns=run_battles.SIDES)
    assert fight(table, tmp_path, 20).loc[0, ["wins_a", "turns"]].tolist() == [0, 1]


def test_friendship_is_70():
    (log,) = engine.battle_logs("pikachustarter", "pikapapow", "mewtwo", "psychic")
    stats = matchups.battle_stats()
    attack, defense = stats.loc["pikachustarter", "special_attack"], stats.loc["mewtwo", "special_defense"]
    taken = [hit[1] for hit in hits(log, {"p1": 500, "p2": int(stats.loc["mewtwo", "hp"])}) if hit[0] == "p1"]
    assert taken
    assert set(taken) <= set(matchups.damage(28, attack, defense, 1.5, 1.0, np.arange(85, 101)).tolist())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("move_a", "splosh", "unknown move: splosh"), ("species_b", "Mew", "unknown species: Mew")],
)
def test_what_the_engine_does_not_know_is_named(few, tmp_path, column, value, message):
    with pytest.raises(engine.EngineError, match=message):
        fight(few.assign(**{column: value}), tmp_path, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": "evaluation"}, "stream: unknown, got 'evaluation'; expected one of training, test, gate"),
        ({"n_battles": 0}, "n_battles: expected at least 1, got 0"),
        ({"n_workers": 0}, "n_workers: expected at least 1, got 0"),
    ],
)
def test_impossible_requests_are_refused(few, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        fight(few, tmp_path, **options)


@pytest.fixture(scope="module")
def cluster():
    """Return the address of a Dask cluster of two worker processes."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        silence_logs=logging.CRITICAL,
    ) as running:
        yield running.scheduler_address


def engines_of(pid: int) -> list[psutil.Process]:
    """Return the engine processes under a process that have not ended."""
    engines = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, or is a zombie
            engines += [child] if "worker.js" in " ".join(child.cmdline()) else []
    return engines


def test_a_cluster_fights_the_same_battles_when_processes_are_killed(few, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(run_battles, "CHUNK_BATTLES", 100)
    killed = []

    def kill(n_battles):
        if n_battles and len(killed) < 2:
            victim = engines_of(os.getpid())[0]
            killed.append(victim.parent() if killed else victim)  # an engine process, then a Dask worker
            killed[-1].kill()

    again = fight(few, tmp_path / "1", 100, cluster=cluster, progress=kill)
    assert len(killed) == 2
    assert not engines_of(os.getpid())
    assert again.equals(fight(few, tmp_path / "2", 100))


def test_a_local_chunk_is_fought_again_when_its_process_is_killed(few, tmp_path, monkeypatch):
    monkeypatch.setattr(run_battles, "CHUNK_BATTLES", 100)
    killed = []

    def kill(n_battles):
        if n_battles and not killed:
            killed.append(engines_of(os.getpid())[0])
            killed[0].kill()

    again = fight(few, tmp_path / "1", 100, progress=kill)
    assert killed
    assert again.equals(fight(few, tmp_path / "2", 100))


def test_a_process_that_always_ends_is_an_error(few, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "PROGRAMS", ("tables.js", "quick.js"))
    with pytest.raises(engine.EngineError, match="the engine stopped"):
        fight(few, tmp_path, 1)


def test_an_unknown_cluster_is_named(few, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_workers, "PATIENCE", 0.5)
    with pytest.raises(engine.EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        fight(few, tmp_path, 1, cluster="tcp://127.0.0.1:9")


def test_a_worker_with_other_programs_is_refused(few, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_workers, "fingerprint", lambda: "other")
    with pytest.raises(engine.EngineError, match="has another version of pokebattle or of the engine"):
        fight(few, tmp_path, 1, cluster=cluster)


QUIET_RUN = """
import sys
from pathlib import Path
import psutil
from pokebattle import engine
from pokebattle.game import matchups

listening = []

def look(_):
    listening.extend(one for one in psutil.Process().net_connections() if one.status == "LISTEN")

engine.fight(matchups.matchups()[:5], 2, stream="training", cache=Path(sys.argv[1]), n_workers=2, progress=look)
print("distributed" in sys.modules, listening)
"""


def test_dask_is_loaded_when_it_is_needed_opens_no_port_and_says_nothing(tmp_path):
    for loaded in (True, False):  # the second run finds everything in the cache
        done = subprocess.run(
            [sys.executable, "-W", "always", "-c", QUIET_RUN, tmp_path], capture_output=True, text=True, check=True
        )
        assert (done.stdout, done.stderr) == (f"{loaded} []\n", "")


LONG_RUN = """
import signal, sys
from pathlib import Path
from pokebattle import engine
from pokebattle.game import matchups
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
engine.fight(matchups.matchups()[:2000], 100, stream="training", cache=Path(sys.argv[1]), n_workers=2)
"""


def workers_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    rows = (map(int, line.split()) for line in table.splitlines())
    return [child for child, parent in rows if parent == pid]


def alive(pid: int) -> bool:
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and "Z" not in done.stdout


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_who_started_them(tmp_path, end):
    with subprocess.Popen([sys.executable, "-c", LONG_RUN, tmp_path], stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(tmp_path.glob("*.json")), "battles that are stored", SECONDS)
        workers = workers_of(process.pid)
        process.send_signal(end)
        _, said = process.communicate(timeout=20)
    assert len(workers) == 2
    wait_for(lambda: not any(map(alive, workers)), "the workers to end", SECONDS)
    assert process.returncode != 0
    assert said.count("Traceback") == said.count("KeyboardInterrupt") == (end == signal.SIGINT)
    assert "Error" not in said


def test_workers_end_when_the_battles_are_done(few, tmp_path):
    before = set(workers_of(os.getpid()))
    fight(few, tmp_path, 2, n_workers=2)
    with pytest.raises(engine.EngineError):
        fight(few.assign(move_a="splosh"), tmp_path, 1)
    assert not [worker for worker in workers_of(os.getpid()) if worker not in before and alive(worker)]


def test_the_committed_tables_are_the_engines(tmp_path):
    installation.write_tables(tmp_path)
    for file in installation.TABLES.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_an_engine_that_cannot_be_fetched_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(engine.EngineError, match=r"npm config set registry URL.* npm reports: .*ECONNREFUSED"):
        engine.install(tmp_path / "engine")
    assert not list((tmp_path / "engine").iterdir())


def test_the_lock_pins_every_package_and_names_no_host():
    lock = (installation.SOURCES / "package-lock.json").read_text()
    assert "://" not in lock
    assert lock.count('"node_modules/') == lock.count('"integrity"')


def test_the_committed_battles_are_repeated(tmp_path):
    for stream, committed in datasets.stored_battles("v3").items():
        some = committed.groupby("policy", sort=False).sample(4, random_state=0)
        again = fight(some, tmp_path, None, stream=stream)
        assert again["wins_a"].tolist() == some["wins_a"].tolist()
        assert again["turns"].to_numpy() == pytest.approx(some["turns"].to_numpy(), rel=1e-6)


def test_matchups_may_fight_unequally_often(few, tmp_path):
    plan = few.assign(n_battles=[2, 2, 30, 30, 2, 5])
    fought = fight(plan, tmp_path / "plan", None)
    for row, n_battles in plan["n_battles"].items():
        alone = fight(few.loc[[row]], tmp_path / "alone", n_battles)
        assert fought.loc[[row]].equals(alone[fought.columns])
