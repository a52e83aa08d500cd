"""Your own battles: read two CSV files, one of species and one of battles, with the mapping of their columns.

Missing names, winners given by id, name or flag, and pairs that fought more than once are handled and noted in
`OwnBattles.notes`. Everything else raises an error of one line, see `csv_reader`. Documented in docs/own-battles.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from pokebattle.datasets.csv_reader import SEPARATORS, Sheet, TablesError, cut, plain, plains, read_sheet
from pokebattle.params import BattlesColumns, SpeciesColumns, Tables

NOTHING = {"", "-", "–", "—", "none", "n/a", "na", "nan", "null"}  # words for "no type" or "no winner"
FLAGS: tuple[Mapping[str, bool], ...] = (  # flags in the winner column: whether the first species won
    {"1": True, "0": False},
    {"true": True, "false": False},
    {"1": True, "2": False},
    {"first": True, "second": False},
)
FIXED = ["species_id", "name", "type_1", "type_2", "family"]
ENOUGH = 6  # expected reversals by chance from which the check of a stat is meaningful, see `_refuse_results`
FROM_RESULTS = 0.1  # share of the expected reversals; with no more, the stat was computed from the results
TILTED = 3.0  # standard errors of the first species' share of wins from 1/2, from which a note reports it


@dataclass(frozen=True)
class OwnBattles:
    """The contents of the two files.

    Attributes
    ----------
    species : DataFrame
        Index species_id (text as in the file). Columns name, type_1, type_2 ("" if there is none), family, and the
        stats.
    battles : DataFrame
        One row for each unordered pair that fought: species_a, species_b (species_a < species_b), wins_a (0 to
        n_battles), n_battles.
    notes : tuple of str
        What was left out or interpreted, one line each.
    files : dict
        rows and sha256 of each file, by the path given in the mapping.
    """

    species: pd.DataFrame = field(repr=False)
    battles: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]
    files: dict[str, dict[str, Any]]


def read(tables: Tables) -> OwnBattles:
    """Read species and battles.

    Parameters
    ----------
    tables : Tables
        Paths and columns of the two files.

    Raises
    ------
    TablesError
        If a file, header, row or cell cannot be used, or a stat was computed from the results. The message
        contains the first such cell and the number of others.
    """
    notes: list[str] = []
    sheets = [read_sheet(label, tables.encoding) for label in (tables.species_file, tables.battles_file)]
    species = _species(sheets[0], tables.species_columns, notes)
    fought = _fought(sheets[1], tables.battles_columns, species, tables.species_file, notes)
    battles = _by_pair(fought, notes)
    if idle := len(species) - len({*battles["species_a"], *battles["species_b"]}):
        notes.append(f"{idle} species never fight{'s' * (idle == 1)}")
    _refuse_results(sheets[0], tables.species_columns.stats, species, battles)
    marks = [
        f"{sheet.label}: {SEPARATORS.get(sheet.separator, sheet.separator)} between the cells"
        for sheet in sheets
        if sheet.separator != ","
    ]
    files = {sheet.label: {"rows": len(sheet.cells), "sha256": sheet.sha256} for sheet in sheets}
    return OwnBattles(species, battles, (*marks, *notes), files)


# Species


def _species(sheet: Sheet, columns: SpeciesColumns, notes: list[str]) -> pd.DataFrame:
    ids = sheet.column(columns.id, "species_columns.id")
    sheet.refuse(ids[ids == ""], "an id")
    sheet.refuse(ids[ids.str.contains("|", regex=False)], "an id without |")
    types = _types(sheet, columns, notes)
    taken = {*FIXED, *(f"is_{name}" for name in np.unique(types))} & columns.stats.keys()
    if taken:
        raise TablesError(f"species_columns.stats: expected another name for {min(taken)}, which is taken")
    stats = {name: sheet.column(header, f"species_columns.stats.{name}") for name, header in columns.stats.items()}
    table = pd.DataFrame(
        {
            "species_id": ids,
            "name": _names(sheet, columns.name, ids, notes),
            **types,
            "family": _families(sheet, columns.family, ids),
            **sheet.numbers(stats),
        }
    )
    return _once(sheet, table, ids, notes).set_index("species_id")


def _names(sheet: Sheet, header: str | None, ids: pd.Series, notes: list[str]) -> pd.Series:
    if header is None:
        return ids
    names, known = sheet.column(header, "species_columns.name"), plains(ids)
    sheet.refuse(names[plains(names).isin(known) & (plains(names) != known)], "a name that is not another species' id")
    if blank := int((names == "").sum()):
        notes.append(f"{blank} species without a name, called by the id")
    return names.where(names != "", ids)


def _types(sheet: Sheet, columns: SpeciesColumns, notes: list[str]) -> pd.DataFrame:
    """Return type_1 and type_2, each type in the spelling of its first occurrence; "" if there is none."""
    spelling = dict.fromkeys(NOTHING, "")
    types = pd.DataFrame("", index=sheet.cells.index, columns=["type_1", "type_2"], dtype="str")
    for key, header in (("type_1", columns.type_1), ("type_2", columns.type_2)):
        if header is not None:
            cells = sheet.column(header, f"species_columns.{key}")
            sheet.refuse(cells[cells.str.contains(r"[\[\]<]")], "a type without [, ] and <")  # XGBoost forbids these
            types[key] = cells.map({cell: spelling.setdefault(plain(cell), cell) for cell in cells.unique()})
    second_only = types["type_1"] == ""
    types.loc[second_only, "type_1"] = types["type_2"]
    types.loc[types["type_2"] == types["type_1"], "type_2"] = ""
    if (none := int((types["type_1"] == "").sum())) and columns.type_1:
        notes.append(f"{none} species without a type")
    return types


def _families(sheet: Sheet, header: str | None, ids: pd.Series) -> pd.Series:
    """Return the family of every species, or its own id if the file gives none."""
    if header is None:
        return plains(ids)
    families = plains(sheet.column(header, "species_columns.family"))
    return families.where(families != "", plains(ids))


def _once(sheet: Sheet, table: pd.DataFrame, ids: pd.Series, notes: list[str]) -> pd.DataFrame:
    """Drop duplicate rows. Raise a TablesError if different rows have the same id."""
    keys = plains(ids)
    again = table.assign(species_id=keys).duplicated()
    twice = ids[~again][keys[~again].duplicated()]
    if len(twice):
        other = keys.index[keys == plain(twice.iloc[0])][0]
        sheet.refuse(twice, f"a unique id (row {other} has the same id with other values)")
    if again.any():
        notes.append(f"{_count(again, 'row')} of {sheet.label} left out: the same as another")
    return table[~again]


# Battles


def _fought(
    sheet: Sheet, columns: BattlesColumns, species: pd.DataFrame, species_file: str, notes: list[str]
) -> pd.DataFrame:
    """Return first, second and first_won of every battle between two species that has a winner."""
    known, several = _known(species)
    fought = pd.DataFrame(index=sheet.cells.index)
    for side, header in (("first", columns.first), ("second", columns.second)):
        cells = sheet.column(header, f"battles_columns.{side}")
        keys = plains(cells)
        sheet.refuse(cells[keys.isin(several)], f"an id, as several species of {species_file} have this name")
        words = [] if keys.str.isdecimal().all() else [*species["name"], *species.index]
        sheet.refuse(cells[~keys.isin(known)], f"an id or a name in {species_file}", words)
        fought[side] = keys.map(known)
    winner = sheet.column(columns.winner, "battles_columns.winner")
    open_ = plains(winner).isin(NOTHING - known.keys())
    alone = (fought["first"] == fought["second"]) & ~open_
    for left_out, what in ((open_, "without a winner"), (alone, "of a species with itself")):
        if left_out.any():
            notes.append(f"{_count(left_out, 'battle')} {what} left out")
    fought, winner = fought[~open_ & ~alone], winner[~open_ & ~alone]
    if fought.empty:
        raise TablesError(f"{sheet.label}: expected battles of two species that have a winner, got none")
    fought = fought.assign(first_won=_first_won(sheet, winner, columns, fought, species))
    share = fought["first_won"].mean()
    if abs(share - 0.5) > TILTED * 0.5 / np.sqrt(len(fought)):
        notes.append(f"the first one wins {share:.1%} of the battles; the order of the two is no feature")
    return fought


def _known(species: pd.DataFrame) -> tuple[dict[str, str], set[str]]:
    """Return the species id for every id and name, and the set of ambiguous names."""
    ids = {plain(species_id): species_id for species_id in species.index}
    names = plains(species["name"])
    return {**dict(zip(names, species.index, strict=True)), **ids}, set(names[names.duplicated()]) - ids.keys()


def _first_won(
    sheet: Sheet, winner: pd.Series, columns: BattlesColumns, fought: pd.DataFrame, species: pd.DataFrame
) -> pd.Series:
    """Return whether the first species won each battle.

    Either all cells of the winner column contain one of the two species, by id or name, or all are flags of one kind.
    A flag such as 1 can also be an id: if at least half of the cells name one of the two species, all cells are read as
    ids, and the others are errors.
    """
    keys = plains(winner)
    if columns.first_won is not None:
        word = plain(str(columns.first_won))
        if word not in set(keys) or keys.nunique() > 2:
            raise TablesError(
                f"{sheet.label}, column {winner.name}: expected {str(columns.first_won)!r} "
                f"(battles_columns.first_won) and one other word, got {cut(', '.join(winner.unique()))}"
            )
        return keys == word
    names = plains(species["name"])
    is_first, is_second = ((keys == plains(fought[side])) | (keys == fought[side].map(names)) for side in fought)
    if (is_first | is_second).all():
        sheet.refuse(winner[is_first & is_second], "an id, as both species of this battle have this name")
        return is_first
    for flags in FLAGS:
        if set(keys) <= flags.keys() and (is_first | is_second).mean() < 0.5:
            return keys.map(flags)
    wrong = winner[~is_first & ~is_second]
    pair = fought.loc[wrong.index[0]]
    words = [word for species_id in pair for word in dict.fromkeys([species["name"][species_id], species_id])]
    sheet.refuse(
        wrong,
        f"one of the two species in this row ({', '.join(words)}), or in all rows whether the first "
        "one won (1 and 0, TRUE and FALSE)",
        words,
    )
    return is_first


def _by_pair(fought: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Count the battles of every unordered pair, in the orientation species_a < species_b."""
    in_order = fought["first"] < fought["second"]
    battles = pd.DataFrame(
        {
            "species_a": fought["first"].where(in_order, fought["second"]),
            "species_b": fought["second"].where(in_order, fought["first"]),
            "a_won": fought["first_won"].astype(bool) == in_order,
        }
    )
    pairs = battles.groupby(["species_a", "species_b"])["a_won"].agg(wins_a="sum", n_battles="size").reset_index()
    pairs = pairs.astype({"species_a": "str", "species_b": "str", "wins_a": "int64", "n_battles": "int64"})
    several = pairs["n_battles"] > 1
    open_ = several & pairs["wins_a"].between(1, pairs["n_battles"] - 1)
    if several.any():
        notes.append(
            f"{_count(several, 'pair')} fought more than once, {open_.sum()} with different winners: they "
            "count by their shares of wins"
        )
    return pairs


def _refuse_results(sheet: Sheet, stats: Mapping[str, str], species: pd.DataFrame, battles: pd.DataFrame) -> None:
    """Raise a TablesError for a stat that was computed from the results: it follows the chance in them.

    A stat that is known before the battles may decide all of them, but it cannot predict which of two species of
    nearly the same strength will win more often by chance. So some neighbours in the order of the results must be
    reversed.
    """
    a, b, n, wins_a = (battles[name].to_numpy() for name in ("species_a", "species_b", "n_battles", "wins_a"))
    fought = pd.Series(np.append(n, n)).groupby(np.append(a, b)).sum()
    wins = pd.Series(np.append(wins_a, n - wins_a)).groupby(np.append(a, b)).sum()
    for name, header in stats.items():
        values = species.loc[fought.index, name]
        lead = np.sign(values[a].to_numpy() - values[b].to_numpy())
        decided = np.select([lead > 0, lead < 0], [wins_a, n - wins_a], 0).sum() / max(n[lead != 0].sum(), 1)
        error = np.sqrt(decided * (1 - decided) * fought)  # standard error of wins, if only this stat decides
        for what, result, result_error in (
            ("shares of wins", wins / fought, error / fought),
            ("wins", wins, error),
            ("losses", fought - wins, error),
        ):
            reversals, expected = _reversals(values.to_numpy(), result.to_numpy(), result_error.to_numpy())
            if expected >= ENOUGH and reversals <= FROM_RESULTS * expected:
                raise TablesError(
                    f"{sheet.label}, column {header}: expected what is known before a battle, got the "
                    f"order of the species' {what} in these battles, including chance: remove {name} from stats"
                )


def _reversals(stat: np.ndarray, result: np.ndarray, error: np.ndarray) -> tuple[int, float]:
    """Count neighbours in the order of the results that the stat (or its negative) puts in reverse order.

    Return this number, and the number that is expected from chance.

    Parameters
    ----------
    stat, result, error : ndarray of shape (n_species,)
        `error` is the standard error of `result`.
    """
    stat = np.sign(np.cov(rankdata(stat), rankdata(result))[0, 1]) * stat
    order = np.lexsort((stat, result))
    step, gap = np.diff(stat[order]), np.diff(result[order])
    differ = (step != 0) & (gap > 0)
    spread = np.maximum(np.hypot(error[order][:-1], error[order][1:]), 1e-12)
    return int((step[differ] < 0).sum()), float(norm.sf(gap[differ] / spread[differ]).sum())


def _count(rows: pd.Series, noun: str) -> str:
    number = int(rows.sum())
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
