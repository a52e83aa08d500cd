"""The committed battles are whole; anything missing, changed or malformed is named."""

import json
import re
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest

from pokebattle import datasets
from pokebattle.datasets import build, load, splits
from pokebattle.game import dex, matchups

STREAMS = {"train": "training", "test": "test", "gate": "gate"}


@pytest.fixture(scope="module", params=splits.PROTOCOLS)
def v3(request) -> datasets.BattleSet:
    return datasets.load_battles("v3", request.param)


def parts(battle_set: datasets.BattleSet) -> dict[str, pd.DataFrame]:
    judging = {part: datasets.open_part(battle_set, part) for part in ("test", "gate")}
    return {"train": battle_set.training, **judging}


def test_v3_has_the_parts_of_its_protocol_with_enough_battles(v3):
    pairs = matchups.pairs()
    part_of = splits.assign(pairs, v3.protocol, v3.families)
    for part, table in parts(v3).items():
        assert list(table.columns) == load.COLUMNS
        assert table["wins_a"].between(0, table["n_battles"]).all()
        assert set(splits.pair_ids(table)) == set(splits.pair_ids(pairs[part_of == part]))
        fought = table.groupby("policy")["n_battles"].agg(["min", "max"])
        assert fought.T.to_dict() == {
            policy: {"min": n, "max": n} for policy, n in build.N_BATTLES[STREAMS[part]].items()
        }
    best = datasets.open_part(v3, "test").query("policy == 'best_move'")
    assert len(best) >= 1500 and best["n_battles"].min() >= 400


def test_v3_is_what_the_recipe_says(v3):
    for part, table in parts(v3).items():
        planned = build.to_fight(STREAMS[part])
        mine = planned[splits.pair_ids(planned).isin(splits.pair_ids(table))]
        order = matchups.MATCHUP
        assert table[order].sort_values(order).to_numpy().tolist() == mine[order].sort_values(order).to_numpy().tolist()


def test_the_committed_files_are_small():
    assert sum(file.stat().st_size for file in load.FOLDER.rglob("*")) < 5_000_000


def test_a_smaller_set_is_part_of_a_larger_one():
    small, large = (
        datasets.load_battles("v3", max_matchups=count, max_judging_pairs=count // 10) for count in (600, 3000)
    )
    assert len(small.training) == 600
    assert small.sizes()["pairs"]["gate"].max() == 60
    for few, many in zip(parts(small).values(), parts(large).values(), strict=True):
        assert 0 < len(few) < len(many)
        assert set(splits.pair_ids(few)) <= set(splits.pair_ids(many))
    assert len({small.digest, large.digest, datasets.load_battles("v3").digest}) == 3
    assert datasets.load_battles("v3", max_matchups=600, max_judging_pairs=60).digest == small.digest
    assert datasets.load_battles("v3", max_matchups=600).digest != small.digest


def test_every_protocol_has_its_digest():
    assert len({datasets.load_battles("v1", protocol).digest for protocol in splits.PROTOCOLS}) == 3


def test_what_judges_is_handed_out_by_name_alone():
    battle_set = datasets.load_battles("v1")
    shown = {name for name, value in vars(battle_set).items() if isinstance(value, pd.DataFrame)}
    assert shown == {"training"}
    with pytest.raises(datasets.DatasetError, match="part: expected one of test, gate, got 'train'"):
        datasets.open_part(battle_set, "train")
    opened = datasets.open_part(battle_set, "test")
    opened["wins_a"] = -1
    assert (datasets.open_part(battle_set, "test")["wins_a"] >= 0).all()


def tables() -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return made-up wins of all matchups of the first 60 pairs, in their streams, and these pairs."""
    pairs = matchups.pairs()[:60]
    part = splits.assign(pairs, "pair", dex.species()["evolution_line"])
    every = matchups.matchups().merge(pairs).assign(wins_a=3, n_battles=10, turns=1.5)
    judged = {name: every[(part == name).to_numpy()].assign(n_battles=100) for name in ("test", "gate")}
    return {"training": every, **judged}, pairs


@pytest.fixture
def folder(tmp_path):
    """Write a small set named "mine" and return the folder that contains it."""
    build.write_battles(tmp_path / "mine", *tables(), {"engine": "none"})
    return tmp_path


def test_what_is_written_is_read_back(folder):
    mine = datasets.load_battles("mine", folder=folder)
    assert mine.manifest["engine"] == "none"
    assert {part: len(table) for part, table in parts(mine).items()} == {"train": 51, "test": 6, "gate": 3}
    written = tables()[0]["test"][load.COLUMNS].astype(str)
    assert datasets.open_part(mine, "test")[load.COLUMNS].astype(str).equals(written.reset_index(drop=True))


def test_the_same_battles_make_the_same_files(folder, tmp_path):
    build.write_battles(tmp_path / "again" / "mine", *tables(), {"engine": "none"})
    for file in (folder / "mine").iterdir():
        assert (tmp_path / "again" / "mine" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v33", "dataset: unknown, got 'v33'; expected one of v1, v2, v3; did you mean v3?"),
        ("zzz", "dataset: unknown, got 'zzz'; expected one of v1, v2, v3"),
    ],
)
def test_an_unknown_set_is_named_with_the_nearest(name, message):
    with pytest.raises(datasets.DatasetError, match=f"^{re.escape(message)}$"):
        datasets.load_battles(name)


def rewrite(folder: Path, file: str, table: pd.DataFrame) -> None:
    """Write another table and a manifest that fits its bytes."""
    table.to_parquet(folder / file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = {"rows": len(table), "sha256": sha256((folder / file).read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage(path, how):
    """Spoil a set in one way."""
    manifest = json.loads((path / "manifest.json").read_text())
    if how == "one byte":
        content = bytearray((path / "training.parquet").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "training.parquet").write_bytes(content)
    elif how == "no file":
        (path / "test.parquet").unlink()
    elif how == "no key":
        del manifest["files"]["gate.parquet"]["sha256"]
        (path / "manifest.json").write_text(json.dumps(manifest))
    elif how == "no json":
        (path / "manifest.json").write_text("{")
    elif how == "rows":
        manifest["files"]["training.parquet"]["rows"] = 61
        (path / "manifest.json").write_text(json.dumps(manifest))
    elif how == "columns":
        table = pd.read_parquet(path / "training.parquet").rename(columns={"turns": "rounds"})
        rewrite(path, "training.parquet", table)
    elif how == "moved":
        protocols = pd.read_parquet(path / "protocols.parquet").astype("str")
        rewrite(path, "protocols.parquet", protocols.assign(pair=protocols["pair"].replace("test", "train")))
    elif how == "no pair":
        rewrite(path, "protocols.parquet", pd.read_parquet(path / "protocols.parquet")[:0])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one byte", r"mine/training\.parquet: sha256 expected .*…, got .*…: the manifest describes another file"),
        ("no file", r"mine/test\.parquet: the file is missing, but the manifest lists it"),
        ("no key", r"mine/manifest\.json: expected files\.gate\.parquet\.sha256, got nothing"),
        ("no json", r"mine/manifest\.json: expected JSON, got "),
        ("rows", r"mine/training\.parquet: rows expected 61, got 60"),
        ("columns", r"columns expected .*turns, got .*rounds"),
        (
            "moved",
            r"mine/protocols\.parquet: pair assigns 6 pairs to other parts than splits\.assign, e\.g\. abra against",
        ),
        (
            "no pair",
            r"mine/training\.parquet: 60 matchups are of pairs that are not in protocols\.parquet, e\.g\. abra",
        ),
    ],
)
def test_a_damaged_set_is_refused(folder, how, message):
    damage(folder / "mine", how)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load_battles("mine", folder=folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("species_b", "missingno", "unknown species in 1 rows, e.g. abra missingno "),
        ("move_a", "splosh", "unknown move in 1 rows"),
        ("species_a", "zubat", "species_a not before species_b in 1 rows"),
        ("wins_a", 11, "wins_a outside 0 to n_battles in 1 rows"),
        ("wins_a", -1, "wins_a outside 0 to n_battles in 1 rows"),
        ("n_battles", 0, "n_battles below 1 in 1 rows"),
    ],
)
def test_impossible_rows_are_refused(tmp_path, column, value, message):
    streams, pairs = tables()
    streams["training"].loc[7, column] = value
    build.write_battles(tmp_path / "mine", streams, pairs, {})
    with pytest.raises(datasets.DatasetError, match=f"mine/training.parquet: {message}"):
        datasets.load_battles("mine", folder=tmp_path)


def test_a_matchup_twice_is_refused(tmp_path):
    streams, pairs = tables()
    streams["training"] = pd.concat([streams["training"], streams["training"][5:6]])
    build.write_battles(tmp_path / "twice", streams, pairs, {})
    with pytest.raises(datasets.DatasetError, match="a matchup twice in 1 rows"):
        datasets.load_battles("twice", folder=tmp_path)


def test_a_negative_number_of_matchups_and_an_unknown_protocol_are_refused():
    with pytest.raises(datasets.DatasetError, match="max_matchups: expected 0"):
        datasets.load_battles("v1", max_matchups=-1)
    with pytest.raises(datasets.DatasetError, match="protocol: unknown, got 'rows'; expected one of pair, one_unseen"):
        datasets.load_battles("v1", "rows")


def test_battles_that_do_not_repeat_are_named():
    every = tables()[0]["training"]
    other = every.assign(wins_a=every["wins_a"].where(every.index != 3, 4))
    assert len(build.compare(every, every[:6])) == 6
    assert len(build.compare(every.assign(n_battles=11), other)) == 60  # as many battles, or no judgement
    with pytest.raises(datasets.DatasetError, match=r"1 of 60 matchups do not .* expected 4, got 3"):
        build.compare(every, other)
