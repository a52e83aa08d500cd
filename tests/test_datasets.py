"""The committed battles are whole; anything missing, changed or malformed is named."""

import json
import re
from hashlib import sha256

import pandas as pd
import pytest

from pokebattle import battles, datasets, splits


def test_v3_holds_every_pair_and_keeps_the_evaluation_pairs_apart():
    v3 = datasets.load_battles("v3")
    assert len(v3.training) + len(v3.evaluation) == 17_391
    assert len(v3.evaluation) >= 1_500
    assert not set(splits.pair_ids(v3.training)) & set(splits.pair_ids(v3.evaluation))
    assert v3.training["n_battles"].min() >= 20
    assert v3.evaluation["n_battles"].min() >= 400
    for table in (v3.training, v3.evaluation):
        assert list(table.columns) == datasets.COLUMNS
        assert table["wins_a"].between(0, table["n_battles"]).all()


def test_v3_is_what_the_policy_and_the_split_say():
    v3 = datasets.load_battles("v3")
    table = battles.matchups("best_move")
    held = splits.evaluation_pairs(table, v3.manifest["evaluation_fraction"])
    for rows, expected in ((v3.training, table[~held]), (v3.evaluation, table[held])):
        assert (rows[battles.MATCHUP].to_numpy() == expected.to_numpy()).all()


def test_the_committed_files_are_small():
    assert sum(file.stat().st_size for file in datasets.FOLDER.rglob("*")) < 5_000_000


def test_a_smaller_set_is_part_of_a_larger_one():
    small, large = datasets.load_battles("v3", 300), datasets.load_battles("v3", 1500)
    assert len(small.training) + len(small.evaluation) == 300
    for part in ("training", "evaluation"):
        assert set(splits.pair_ids(getattr(small, part))) <= set(splits.pair_ids(getattr(large, part)))
    assert len({small.digest, large.digest, datasets.load_battles("v3").digest}) == 3
    assert datasets.load_battles("v3", 300).digest == small.digest


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    every = battles.matchups()[:20].assign(wins_a=3, n_battles=10, turns=1.5)
    return every, every[:4].assign(n_battles=100)


@pytest.fixture
def folder(tmp_path):
    """Write a small set named "mine" and return the folder that holds it."""
    datasets.write_battles(tmp_path / "mine", *tables(), {"policy": "best_move"})
    return tmp_path


def test_what_is_written_is_read_back(folder):
    mine = datasets.load_battles("mine", folder=folder)
    assert mine.manifest["policy"] == "best_move"
    assert len(mine.training) == 16
    assert mine.evaluation[datasets.COLUMNS].astype(str).equals(tables()[1][datasets.COLUMNS].astype(str))


def test_the_same_battles_make_the_same_files(folder, tmp_path):
    datasets.write_battles(tmp_path / "again" / "mine", *tables(), {"policy": "best_move"})
    for file in (folder / "mine").iterdir():
        assert (tmp_path / "again" / "mine" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("name", "message"), [
    ("v33", "dataset: unknown, got 'v33'; expected one of v1, v2, v3; did you mean v3?"),
    ("zzz", "dataset: unknown, got 'zzz'; expected one of v1, v2, v3"),
])
def test_an_unknown_set_is_named_with_the_nearest(name, message):
    with pytest.raises(datasets.DatasetError, match=f"^{re.escape(message)}$"):
        datasets.load_battles(name)


def damage(path, how):
    """Spoil a set in one way; a spoilt table keeps a manifest that fits its bytes."""
    manifest = json.loads((path / "manifest.json").read_text())
    if how == "one byte":
        content = bytearray((path / "battles.parquet").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "battles.parquet").write_bytes(content)
    elif how == "no file":
        (path / "evaluation.parquet").unlink()
    elif how == "no key":
        del manifest["files"]["battles.parquet"]["sha256"]
        (path / "manifest.json").write_text(json.dumps(manifest))
    elif how == "no json":
        (path / "manifest.json").write_text("{")
    elif how == "rows":
        manifest["files"]["battles.parquet"]["rows"] = 21
        (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(("how", "message"), [
    ("one byte", r"mine/battles\.parquet: sha256 expected .*…, got .*…: the file is not the one"),
    ("no file", r"mine/evaluation\.parquet: the manifest names it, and it is missing"),
    ("no key", r"mine/manifest\.json: expected files\.battles\.parquet\.sha256, got nothing"),
    ("no json", r"mine/manifest\.json: expected JSON, got "),
    ("rows", r"mine/battles\.parquet: rows expected 21, got 20"),
])
def test_a_damaged_set_is_refused(folder, how, message):
    damage(folder / "mine", how)
    with pytest.raises(datasets.DatasetError, match=message):
        datasets.load_battles("mine", folder=folder)


@pytest.mark.parametrize(("column", "value", "message"), [
    ("species_b", "missingno", "unknown species in 1 rows, e.g. abra missingno "),
    ("move_a", "splosh", "unknown move in 1 rows"),
    ("species_a", "zubat", "species_a not before species_b in 1 rows"),
    ("wins_a", 11, "wins_a outside 0 to n_battles in 1 rows"),
    ("wins_a", -1, "wins_a outside 0 to n_battles in 1 rows"),
])
def test_impossible_rows_are_refused(tmp_path, column, value, message):
    every, judged = tables()
    every.loc[7, column] = value
    datasets.write_battles(tmp_path / "mine", every, judged, {})
    with pytest.raises(datasets.DatasetError, match=f"mine/battles.parquet: {message}"):
        datasets.load_battles("mine", folder=tmp_path)


def test_a_matchup_twice_and_an_unknown_pair_are_refused(tmp_path):
    every, judged = tables()
    datasets.write_battles(tmp_path / "twice", pd.concat([every, every[5:6]]), judged, {})
    with pytest.raises(datasets.DatasetError, match="a matchup twice in 1 rows"):
        datasets.load_battles("twice", folder=tmp_path)
    datasets.write_battles(tmp_path / "other", every[1:], judged, {})
    with pytest.raises(datasets.DatasetError, match=r"1 pairs .* e\.g\. abra\|aerodactyl"):
        datasets.load_battles("other", folder=tmp_path)


def test_a_wrong_column_is_named(folder):
    table = pd.read_parquet(folder / "mine" / "battles.parquet").rename(columns={"turns": "rounds"})
    table.to_parquet(folder / "mine" / "battles.parquet")
    manifest = folder / "mine" / "manifest.json"
    content = json.loads(manifest.read_text())
    written = sha256((folder / "mine" / "battles.parquet").read_bytes()).hexdigest()
    content["files"]["battles.parquet"]["sha256"] = written
    manifest.write_text(json.dumps(content))
    with pytest.raises(datasets.DatasetError, match=r"columns expected .*turns, got .*rounds"):
        datasets.load_battles("mine", folder=folder)


def test_a_negative_number_of_matchups_is_refused():
    with pytest.raises(datasets.DatasetError, match="max_matchups: expected 0"):
        datasets.load_battles("v3", -1)


def test_battles_that_do_not_repeat_are_named():
    every, _ = tables()
    other = every.assign(wins_a=every["wins_a"].where(every.index != 3, 4))
    assert len(datasets.compare(every, every[:6])) == 6
    assert len(datasets.compare(every.assign(n_battles=11), other)) == 20  # as many battles, or no judgement
    with pytest.raises(datasets.DatasetError, match=r"1 of 20 matchups do not .* expected 4, got 3"):
        datasets.compare(every, other)
