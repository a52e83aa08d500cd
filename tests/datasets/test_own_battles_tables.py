"""Two CSV files become a battle set like any other; what cannot be used is named by file, row and column."""

import json
import re
import runpy
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from pokebattle import evaluation
from pokebattle.datasets import DatasetError, leaks, load_battles, open_part, splits
from pokebattle.datasets.csv_reader import TablesError
from pokebattle.datasets.own_battles import read
from pokebattle.evaluation import plots
from pokebattle.learning.baselines import baselines
from pokebattle.learning.features import matchup_features, mirror
from pokebattle.learning.stat_features import StatFeatures
from pokebattle.model import BattleWinner
from pokebattle.params import ParamsError, Tables, load_params

SPECIES = """\
Nr,Nomo,Speco,Dua speco,Vivo,Rapido
1,Karlo,Fajro,,40,60
2,Mirna,Akvo,Ŝtono,55.5,20
3,Tovo,Ŝtono,,70,10
10,Zeta,fajro,Akvo,30,90
"""
BATTLES = """\
Unua,Dua,Venkinto
1,2,2
2,1,1
10,3,3
1,3,1
"""
COLUMNS = {
    "species_columns": {
        "id": "Nr",
        "name": "Nomo",
        "type_1": "Speco",
        "type_2": "Dua speco",
        "stats": {"hp": "Vivo", "speed": "Rapido"},
    },
    "battles_columns": {"first": "Unua", "second": "Dua", "winner": "Venkinto"},
}
SEVERAL = "1 pair fought more than once, 1 with different winners: they count by their shares of wins"


@pytest.fixture
def write(tmp_path):
    """Write the two files, as text or as bytes; return the mapping, with some columns changed."""

    def write(species=SPECIES, battles=BATTLES, *, encoding=None, battles_columns=None, **species_columns):
        for name, content in (("species", species), ("battles", battles)):
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / f"{name}.csv").write_bytes(data)
        return Tables(
            species_file=str(tmp_path / "species.csv"),
            battles_file=str(tmp_path / "battles.csv"),
            encoding=encoding,
            species_columns=COLUMNS["species_columns"] | species_columns,
            battles_columns=COLUMNS["battles_columns"] | (battles_columns or {}),
        )

    return write


@pytest.fixture
def refusal(tmp_path):
    """Return the one line of the refusal, without the folder of the files."""

    def refusal(tables):
        with pytest.raises(TablesError) as caught:
            read(tables)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refusal


def pairs(own):
    return [tuple(row) for row in own.battles.itertuples(index=False)]


def notes(own, tmp_path):
    return [note.replace(f"{tmp_path}/", "") for note in own.notes]


def test_two_files_become_species_and_pairs(write, tmp_path):
    own = read(write())
    assert list(own.species) == ["name", "type_1", "type_2", "family", "hp", "speed"]
    assert own.species.loc["2"].tolist() == ["Mirna", "Akvo", "Ŝtono", "2", 55.5, 20.0]
    assert own.species.loc["10", ["type_1", "type_2"]].tolist() == ["Fajro", "Akvo"], "in the spelling that came first"
    # 1 against 2 was won by either once; ids are compared as text, so that 10 comes before 3.
    assert pairs(own) == [("1", "2", 1, 2), ("1", "3", 1, 1), ("10", "3", 0, 1)]
    assert notes(own, tmp_path) == [SEVERAL]
    assert [facts["rows"] for facts in own.files.values()] == [4, 4]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.encode("utf-16"),
        lambda text: text.replace(",", ";").replace("55.5", "55,5"),
        lambda text: "sep=;\r\n" + text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", " | "),
        lambda text: "\n\n" + text.replace("\n", "\n,,,,,\n" if "Nomo" in text else "\n\n"),
        lambda text: text.upper().replace("FAJRO", "Fajro").replace("AKVO", "Akvo").replace("ŜTONO", "Ŝtono"),
        lambda text: re.sub(r"([^,\n]+)", r' "\1"', text),
        lambda text: text.replace("\n", ",,\n"),
        lambda text: re.sub(r"\b(\d+)\b(?!\.)", r"\1.0", text) if "Unua" in text else text,
        lambda text: text.replace(",", ",\xa0"),
    ],
    ids=[
        "CRLF",
        "CR",
        "mark",
        "UTF-16",
        "semicolons",
        "sep=",
        "tabs",
        "bars",
        "blank rows",
        "case",
        "quotes",
        "trailing separators",
        "ids as 1.0",
        "blanks",
    ],
)
def test_the_form_of_a_file_does_not_matter(write, change):
    plain, other = read(write()), read(write(change(SPECIES), change(BATTLES)))
    assert pairs(other) == pairs(plain)
    drop = ["name"] if "KARLO" in other.species["name"].to_list() else []
    assert other.species.drop(columns=drop).equals(plain.species.drop(columns=drop))


def test_other_encodings_are_named_by_the_mapping(write, refusal):
    latin = SPECIES.replace("Ŝ", "é").encode("cp1252")
    assert read(write(latin, encoding="cp1252")).species.loc["2", "type_2"] == "étono"
    mixed = write(latin, BATTLES.replace("Karlo", "karlo").encode("utf-8-sig"), encoding="cp1252")
    assert len(read(mixed).battles) == len(read(write()).battles)  # the mapping names what is not UTF-8
    assert read(write(SPECIES.encode("utf-16-le"), encoding="utf-16-le")).species.equals(read(write()).species)
    assert refusal(write(latin)) == (
        "species.csv, row 3: expected utf-8 text, got the byte 0xe9: save it as UTF-8, or name its encoding, "
        "e.g. tables.encoding: cp1252"
    )
    assert refusal(write(encoding="utf-9")) == (
        "tables.encoding: expected an encoding such as utf-8 or cp1252, got 'utf-9'"
    )


@pytest.mark.parametrize(
    "battles",
    [
        "Unua,Dua,Venkinto\nKarlo,mirna,Mirna\nMirna,KARLO,karlo\nzeta,Tovo,Tovo\nKarlo,Tovo,Karlo\n",
        "Unua,Dua,Venkinto\n1,Mirna,2\n2,1,Karlo\nZeta,3,Tovo\nKarlo,Tovo,1\n",
        "Unua,Dua,Venkinto\n1,2,0\n2,1,0\n10,3,0\n1,3,1\n",
        "Unua,Dua,Venkinto\n1,2,0.0\n2,1,0.0\n10,3,0.0\n1,3,1.0\n",
        "Unua,Dua,Venkinto\n1,2,FALSE\n2,1,False\n10,3,false\n1,3,True\n",
        "Unua,Dua,Venkinto\n001,2,2\n2,001,1\n10,3,3\n1,3,001\n",
        "Unua,Dua,Venkinto\n1,2,second\n2,1,Second\n10,3,second\n1,3,first\n",
    ],
)
def test_species_and_winner_can_be_given_in_many_forms(write, battles):
    assert pairs(read(write(battles=battles))) == [("1", "2", 1, 2), ("1", "3", 1, 1), ("10", "3", 0, 1)]


def test_one_and_two_are_flags_where_they_can_be_no_ids(write):
    species = SPECIES.replace("\n1,", "\n7,").replace("\n2,", "\n8,")
    own = read(write(species, "Unua,Dua,Venkinto\n7,8,2\n8,7,2\n10,3,2\n7,3,1\n"))
    assert pairs(own) == [("10", "3", 0, 1), ("3", "7", 0, 1), ("7", "8", 1, 2)]


@pytest.mark.parametrize(("word", "others"), [("ja", "nein"), (0, "1"), (True, "no"), ("sinistra", "destra")])
def test_a_word_for_the_first_ones_win_may_be_given(write, word, others):
    flags = [others, others, others, word]
    rows = zip(["1,2", "2,1", "10,3", "1,3"], flags, strict=True)
    battles = "Unua,Dua,Venkinto\n" + "".join(f"{sides},{flag}\n" for sides, flag in rows)
    own = read(write(battles=battles, battles_columns={"first_won": word}))
    assert pairs(own) == [("1", "2", 1, 2), ("1", "3", 1, 1), ("10", "3", 0, 1)]


def test_what_was_handled_is_remarked_on(write, tmp_path):
    species = SPECIES.replace("Mirna", "").replace(",10\n", ",10\n3,Tovo,Ŝtono,,70,10\n4,Lina,-,None,1,2\n")
    battles = BATTLES + "3,3,3\n3,1,\n1,3,none\n"
    own = read(write(species, battles))
    assert own.species.loc["2", "name"] == "2"
    assert own.species.loc["4", ["type_1", "type_2"]].tolist() == ["", ""]
    assert notes(own, tmp_path) == [
        "1 species without a type",
        "1 species without a name, called by the id",
        "1 row of species.csv left out: the same as another",
        "2 battles without a winner left out",
        "1 battle of a species with itself left out",
        SEVERAL,
        "1 species never fights",
    ]
    assert pairs(own) == pairs(read(write()))


def test_a_species_may_be_called_null(write):
    own = read(write(SPECIES.replace("Tovo", "Null"), BATTLES.replace("10,3,3", "10,3,Null")))
    assert pairs(own) == pairs(read(write()))


def test_that_the_first_one_tends_to_win_is_remarked_on(write):
    own = read(write(battles="Unua,Dua,Venkinto\n" + "1,2,1\n2,1,2\n" * 8))
    assert "the first one wins 100.0% of the battles; the order of the two is no feature" in own.notes
    assert pairs(own) == [("1", "2", 8, 16)]


def test_types_name_and_family_may_be_left_out(write):
    own = read(write(name=None, type_1=None, type_2=None))
    assert own.species["name"].tolist() == ["1", "2", "3", "10"]
    assert not own.species[["type_1", "type_2"]].any(axis=None)
    assert not [note for note in own.notes if "type" in note]
    families = read(write(family="Speco")).species["family"]
    assert families["1"] == families["10"] != families["3"]


def test_true_and_false_are_a_stat(write):
    species = SPECIES.replace(",60\n", ",True\n").replace(",20\n", ",FALSE\n").replace(",10\n", ",False\n")
    own = read(write(species.replace(",90\n", ",true\n")))
    assert own.species["speed"].tolist() == [1, 0, 0, 1]


QUOTES = "expected a quote at both ends of a cell or at none, got "
WINNER = (
    "expected one of the two species in this row (Zeta, 10, Tovo, 3), or in all rows whether the first one "
    "won (1 and 0, TRUE and FALSE)"
)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            ("Vivo", "Viva"),
            ", row 1: expected the header 'Vivo' (species_columns.stats.hp), got Nr, Nomo, Speco, Dua "
            "speco, Viva, Rapido; did you mean Viva?",
        ),
        (("Rapido", "vivo"), ", row 1: expected the header 'Vivo' (species_columns.stats.hp) once, got it 2 times"),
        ((",40,", ",,"), ", row 2, column Vivo: expected a number, got nothing"),
        ((",40,", ",forty,"), ", row 2, column Vivo: expected a number, got 'forty'"),
        ((",40,", ",nan,"), ", row 2, column Vivo: expected a number, got 'nan'"),
        ((",40,", ",40 kg,"), ", row 2, column Vivo: expected a number, got '40 kg'"),
        ((",40,", ",1e39,"), ", row 2, column Vivo: expected a number below 3e38, got '1e39'"),
        (
            (",40,", ',"40,5",'),
            ", row 3, column Vivo: expected a number with a decimal comma, as elsewhere in this file, got '55.5'",
        ),
        (
            (",40,", ',"1,234",'),
            ", row 2, column Vivo: expected a number in which it is clear whether the comma "
            "separates thousands or decimals, got '1,234'",
        ),
        (("\n3,", "\n,"), ", row 4, column Nr: expected an id, got nothing"),
        (("\n3,", "\na|b,"), ", row 4, column Nr: expected an id without |, got 'a|b'"),
        (
            ("\n3,", "\n002,"),
            ", row 4, column Nr: expected a unique id (row 3 has the same id with other values), got '002'",
        ),
        (("Tovo", "10"), ", row 4, column Nomo: expected a name that is not another species' id, got '10'"),
        ((",Ŝtono,,", ",Ŝto[no],,"), ", row 4, column Speco: expected a type without [, ] and <, got 'Ŝto[no]'"),
        (("3,Tovo", "3"), ", row 4: expected 6 cells, one per header, got 5"),
        (("3,Tovo", "3,To,vo"), ", row 4: expected 6 cells, one per header, got 7"),
        (("Tovo", '"To"vo'), f", row 4: {QUOTES}',' expected after '\"'"),
        (("Tovo", '"Tovo'), f", row 4: {QUOTES}unexpected end of data"),
        (("Karlo", '"Kar\nlo",,,,\n\n5,"x'), f", row 4: {QUOTES}unexpected end of data"),
        ((SPECIES, ""), ": expected headers and rows below them, got no rows"),
        ((SPECIES[34:], ""), ": expected headers and rows below them, got 1 rows"),
        ((SPECIES, "PK\x03\x04\x00"), ": expected a CSV file, got a workbook: save its sheet as CSV UTF-8"),
    ],
)
def test_a_file_of_species_that_cannot_be_used_is_named(write, refusal, spoil, message):
    assert spoil[0] in SPECIES
    assert refusal(write(SPECIES.replace(*spoil, 1))) == f"species.csv{message}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (("10,3,3", "11,3,3"), ", row 4, column Unua: expected an id or a name in species.csv, got '11'"),
        (
            ("10,3,3", "Karla,3,3"),
            ", row 4, column Unua: expected an id or a name in species.csv, got 'Karla'; did you mean Karlo?",
        ),
        (
            ("1,2,2\n2,1,1", "7,2,2\n7,1,1"),
            ", row 2, column Unua: expected an id or a name in species.csv, got '7' (1 more like it)",
        ),
        (("10,3,3", "10,,3"), ", row 4, column Dua: expected an id or a name in species.csv, got nothing"),
        (("10,3,3", "10,3,2"), f", row 4, column Venkinto: {WINNER}, got '2'"),
        (("10,3,3", "10,3,Tova"), f", row 4, column Venkinto: {WINNER}, got 'Tova'; did you mean Tovo?"),
        ((BATTLES[18:], "3,3,3\n"), ": expected battles of two species that have a winner, got none"),
        (
            ("Venkinto", "Venkonto"),
            ", row 1: expected the header 'Venkinto' (battles_columns.winner), got Unua, Dua, "
            "Venkonto; did you mean Venkonto?",
        ),
    ],
)
def test_battles_that_cannot_be_used_are_named(write, refusal, spoil, message):
    assert spoil[0] in BATTLES
    assert refusal(write(battles=BATTLES.replace(*spoil, 1))) == f"battles.csv{message}"


def test_a_name_of_two_species_names_neither(write, refusal):
    twins = SPECIES.replace("Tovo", "Karlo")
    assert pairs(read(write(twins))) == pairs(read(write()))
    assert refusal(write(twins, BATTLES + "Karlo,2,2\n")) == (
        "battles.csv, row 6, column Unua: expected an id, as several species of species.csv have this name, got 'Karlo'"
    )
    assert refusal(write(twins, BATTLES + "1,3,Karlo\n")) == (
        "battles.csv, row 6, column Venkinto: expected an id, as both species of this battle have this name, "
        "got 'Karlo'"
    )


def test_the_word_for_the_first_ones_win_must_be_there(write, refusal):
    tables = write(battles=BATTLES.replace(",2,2", ",2,ja"), battles_columns={"first_won": "si"})
    assert refusal(tables) == (
        "battles.csv, column Venkinto: expected 'si' (battles_columns.first_won) and one other word, got ja, 1, 3"
    )


def test_a_stat_may_not_have_a_name_that_is_taken(write, refusal):
    for name in ("name", "family"):
        assert refusal(write(stats={name: "Vivo"})) == (
            f"species_columns.stats: expected another name for {name}, which is taken"
        )
    assert "is_akvo" in read(write(stats={"is_akvo": "Vivo"})).species, "a type's feature is is_Akvo"
    low = SPECIES.replace("Akvo", "akvo")
    assert "is_akvo, which is taken" in refusal(write(low, stats={"is_akvo": "Vivo"}))


def test_a_missing_file_is_named_with_the_nearest(write, refusal):
    tables = write()
    misspelt = tables.model_copy(update={"species_file": tables.species_file.replace("species", "specie")})
    assert refusal(misspelt) == (
        "specie.csv: expected a CSV file, got No such file or directory; did you mean species.csv?"
    )


def test_paths_are_relative_to_the_project(write, root):
    tables = write().model_copy(update={"battles_file": "requirements.lock"})
    with pytest.raises(TablesError, match=r"^requirements\.lock, row 1: expected the header 'Unua'"):
        read(tables)


@pytest.mark.parametrize(
    "change",
    [
        {"species_columns": {"id": "Nr", "stats": {}}},
        {"species_columns": {"id": "Nr", "stats": {"HP": "Vivo"}}},
        {"species_columns": {"id": "Nr", "stats": {"hp": "Vivo"}, "typ_1": "x"}},
        {"species_columns": {"id": 1, "stats": {"hp": "Vivo"}}},
        {"species_columns": {"stats": {"hp": "Vivo"}}},
        {"battles_columns": {"first": "a", "second": "b"}},
        {"species_file": ""},
    ],
)
def test_the_mapping_is_strict(change):
    whole = {"species_file": "a", "battles_file": "b", **COLUMNS}
    Tables(**whole)
    with pytest.raises(ValidationError):
        Tables(**whole | change)


# A stat that was computed from the results


def league(n_species, luck):
    """Species of one strength each, and everyone's battles, more or less by strength."""
    strengths = [(7 * number) % n_species for number in range(n_species)]
    battles, wins = [], [0] * n_species
    for a in range(n_species):
        for b in range(a):
            upset = (a * 31 + b * 17) % 100 < luck
            winner = a if (strengths[a] > strengths[b]) != upset else b
            wins[winner] += 1
            battles.append(f"{a},{b},{winner}")
    header = "Nr,Forto,Venkoj,Rango\n"
    rows = [f"{n},{strengths[n]},{wins[n] / (n_species - 1):.2f},{n_species - wins[n]}" for n in range(n_species)]
    return header + "\n".join(rows), "Unua,Dua,Venkinto\n" + "\n".join(battles)


@pytest.mark.parametrize("column", ["Venkoj", "Rango"])
def test_a_stat_that_reveals_the_results_is_refused(write, refusal, column):
    files = league(37, luck=15)
    mapping = {"name": None, "type_1": None, "type_2": None}
    assert read(write(*files, **mapping, stats={"strength": "Forto"})).species["strength"].max() == 36
    message = refusal(write(*files, **mapping, stats={"strength": "Forto", "result": column}))
    assert message == (
        f"species.csv, column {column}: expected what is known before a battle, got the order of the species' shares "
        "of wins in these battles, including chance: remove result from stats"
    )


# A format that many know


def test_the_well_known_pair_of_files_is_read_by_a_mapping(write):
    species = (
        "#,Name,Type 1,Type 2,HP,Attack,Sp. Atk,Speed,Generation,Legendary\n"
        '1,Leafling,Grass,Poison,45,49,65,45,1,False\n2,"Leafling, Mega",Grass,,60,62,80,60,1,False\n'
        "63,,Fighting,,65,105,60,95,1,False\n800,Titan,Rock,Fairy,50,100,100,50,6,True\n"
    )
    battles = "First_pokemon,Second_pokemon,Winner\n800,1,800\n63,2,63\n2,1,2\n63,800,63\n"
    own = read(
        write(
            species,
            battles,
            id="#",
            name="Name",
            type_1="Type 1",
            type_2="Type 2",
            stats={"hp": "HP", "special_attack": "Sp. Atk", "speed": "Speed", "is_legendary": "legendary"},
            battles_columns={"first": "First_pokemon", "second": "Second_pokemon", "winner": "Winner"},
        )
    )
    assert own.species["name"].tolist() == ["Leafling", "Leafling, Mega", "63", "Titan"]
    assert own.species.loc["800", ["hp", "special_attack", "speed", "is_legendary"]].tolist() == [50, 100, 50, 1]
    assert pairs(own) == [("1", "2", 0, 1), ("1", "800", 0, 1), ("2", "63", 0, 1), ("63", "800", 1, 1)]
    assert "1 species without a name, called by the id" in own.notes


# As any other version


@pytest.fixture(scope="module")
def own():
    """The committed example."""
    params = load_params({"version": "own"})
    return load_battles("tables", params.protocol, tables=params.tables)


@pytest.fixture(scope="module")
def model(own):
    params = load_params({"version": "own"})
    return BattleWinner.from_params(params).fit(
        own.training, own.training["wins_a"], own.training["n_battles"], own.species
    )


def test_the_committed_example_is_what_its_script_writes(root, tmp_path, own):
    shutil.copy(root / "docs" / "own-battles" / "make.py", tmp_path)
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    for name in ("species.csv", "battles.csv"):
        assert (tmp_path / name).read_bytes() == (root / "docs" / "own-battles" / name).read_bytes()
    assert "2 battles without a winner left out" in own.notes
    assert "1 species never fights" in own.notes
    assert own.notes[-1].startswith("there are no moves")


def test_a_battle_set_is_divided_by_the_pairs_that_fought(own):
    whole = read(load_params({"version": "own"}).tables)
    parts = [own.training, open_part(own, "test"), open_part(own, "gate")]
    together = pd.concat(parts).sort_values(["species_a", "species_b"]).reset_index(drop=True)
    assert together.equals(whole.battles)
    assert own.sizes()["battles"].sum() == own.manifest["battles"] == 1498
    assert own.sizes().loc[("test", "own"), "pairs"] == round(splits.TEST * len(whole.battles))


def test_a_family_column_keeps_species_together(tmp_path, root):
    tables = load_params({"version": "own"}).tables
    text = (root / "docs/own-battles/species.csv").read_text().splitlines()
    lines = [f"{line};{'Familio' if row == 0 else f'F{row // 4}'}" for row, line in enumerate(text)]
    (tmp_path / "species.csv").write_text("\n".join(lines))
    columns = tables.species_columns.model_copy(update={"family": "Familio"})
    mine = tables.model_copy(update={"species_file": str(tmp_path / "species.csv"), "species_columns": columns})
    battles = load_battles("tables", "both_unseen", tables=mine)
    judging, teaching = open_part(battles, "test"), battles.training
    met = {*judging["species_a"], *judging["species_b"]}
    known = {*teaching["species_a"], *teaching["species_b"]}
    assert len(met) > 5
    assert not set(battles.families[list(met)]) & set(battles.families[list(known)])


def test_the_digest_is_of_the_content_not_of_the_form(tmp_path, root):
    tables = load_params({"version": "own"}).tables
    files = {name: tmp_path / f"{name}.csv" for name in ("species", "battles")}
    mine = tables.model_copy(update={f"{name}_file": str(file) for name, file in files.items()})

    def digest(change=lambda text: text, protocol="pair"):
        for name, file in files.items():
            text = (root / "docs" / "own-battles" / f"{name}.csv").read_text()
            file.write_bytes(change(text).encode())
        return load_battles("tables", protocol, tables=mine).digest

    plain = digest()
    assert digest(lambda text: text.replace(";", "\t").replace("\n", "\r\n").upper()) != plain, "names are content"
    assert digest(lambda text: "\ufeff" + text.replace(";", "\t").replace("\n", "\r\n")) == plain
    assert digest(lambda text: text.replace("Talrako;Talzeto;Talrako", "Talrako;Talzeto;Talzeto", 1)) != plain
    assert digest(lambda text: text.replace(";67,0", ";67,1")) != plain
    assert digest(protocol="one_unseen") != plain


def test_what_is_no_battle_set_is_refused(write):
    with pytest.raises(DatasetError, match=r"^tables: expected two files and the mapping of their columns"):
        load_battles("tables")
    with pytest.raises(DatasetError, match=r"as in v3, got 'tables', which come from your own files$"):
        load_battles("tables", by_engine=True, tables=write())
    with pytest.raises(
        DatasetError,
        match=r"battles.csv: expected at least 20 pairs of species in the train part "
        r"under the protocol pair, got 3 of 3$",
    ):
        load_battles("tables", tables=write())


def test_features_are_stats_types_and_leads(own):
    features = matchup_features("raw", own.species)
    pair = pd.DataFrame({"species_a": ["K01"], "species_b": ["K02"]})
    table = features.set_output(transform="pandas").transform(pair)
    row = table.iloc[0]
    assert (row["a_hp"], row["b_hp"], row["lead_hp"]) == (106, 76, 30)
    assert (row["a_is_Fajro"], row["a_is_Lumo"], row["a_is_Vento"], row["b_is_Vento"]) == (1, 1, 0, 1)
    assert row["lead_weight"] == np.float32(67.0 - 52.4)
    assert len(row) == 2 * (5 + 6) + 5
    assert not [name for name in table if re.search("nomo|family|name|Bradino", name)]


def test_swapping_the_sides_swaps_features_and_mirrors_the_prediction(own, model):
    test = open_part(own, "test")
    features = StatFeatures(own.species)
    as_is, swapped = features.both_orientations(test)
    assert (swapped == features.transform(mirror(test))).all()
    names = features.get_feature_names_out().tolist()
    for number, name in enumerate(names):
        other = {"a": "b", "b": "a"}.get(name[0])
        expected = as_is[:, names.index(other + name[1:])] if other else -as_is[:, number]
        assert (swapped[:, number] == expected).all(), name
    there, back = model.predict_proba(test), model.predict_proba(mirror(test))
    assert (there[:, 1] == back[:, 0]).all()
    assert len(set(there[:, 1])) > 30


def test_a_saved_model_predicts_the_same_from_ids_alone(own, model, tmp_path):
    loaded = BattleWinner.load(model.save(tmp_path))
    test = open_part(own, "test")[["species_a", "species_b"]]
    assert (loaded.predict_proba(test) == model.predict_proba(test)).all()
    assert (
        loaded.save(tmp_path / "again").joinpath("features.json").read_text()
        == (tmp_path / "features.json").read_text()
    )
    assert "Bradino" not in (tmp_path / "features.json").read_text()
    idle = pd.DataFrame({"species_a": ["K40"], "species_b": ["K01"]})
    assert 0 < loaded.predict_proba(idle)[0, 1] < 1, "a species that never fought is known by its stats"
    with pytest.raises(ValueError, match=r"^species_b: unknown id, got 'K99'; did you mean K"):
        loaded.predict_proba(pd.DataFrame({"species_a": ["K01"], "species_b": ["K99"]}))
    with pytest.raises(ValueError, match=r"^matchups: column species_b is missing, got species_a$"):
        loaded.predict_proba(pd.DataFrame({"species_a": ["K01"]}))


def test_a_model_learns_the_invented_league_and_is_judged_as_any_other(own, model):
    test = evaluation.single_orientation(open_part(own, "test"))
    predictions = {"model": model.predict_proba(test)[:, 1], **baselines(own.training, test, species=own.species)}
    assert list(predictions) == ["model", "constant", "faster species", "higher base-stat total", "logistic regression"]
    scores = evaluation.evaluate_policies(test, predictions, n_bootstrap=20, random_state=1)
    loss = scores[scores["metric"] == "log_loss"].set_index("predictor")["value"]
    assert loss["model"] < 0.6 < loss["constant"]
    numbers = StatFeatures(own.species).both_orientations(own.training)
    curve = evaluation.learning_curve(model, own.training, numbers, 2, n_bootstrap=20, random_state=1)
    assert curve["held_out"].max() < loss["constant"]
    errors = evaluation.largest_errors(test, predictions["model"], 3)
    assert list(errors) == ["species_a", "species_b", "observed", "predicted", "n_battles", "cost"]
    first = errors.iloc[0]
    names = [label.get_text() for label in plots.largest_errors(errors).axes[0].get_yticklabels()]
    assert f"{first['species_a']} – {first['species_b']}" in names


def test_a_rule_needs_its_stats(own):
    test = open_part(own, "test")
    named = own.species.drop(columns="speed")
    predictions = baselines(own.training, test, species=named)
    assert list(predictions) == ["constant", "higher base-stat total", "logistic regression"]
    weighed = baselines(own.training, test, species=named.assign(weight=named["weight"] * 1e6))
    assert (weighed["higher base-stat total"] == predictions["higher base-stat total"]).all(), "weight is no base stat"


def test_what_needs_moves_is_refused(own):
    with pytest.raises(ValueError, match="expected raw for your own species, got 'mechanics', which needs"):
        matchup_features("mechanics", own.species)


def test_a_stat_that_decides_every_battle_is_refused_by_the_leak_check(write):
    species, battles = league(37, luck=0)
    tables = write(species, battles, name=None, type_1=None, type_2=None, stats={"strength": "Forto"})
    own = load_battles("tables", tables=tables)
    features = matchup_features("raw", own.species)
    with pytest.raises(splits.LeakError, match="strength"):
        leaks.check_columns(
            features.transform(own.training),
            features.get_feature_names_out(),
            own.training["wins_a"],
            own.training["n_battles"],
        )


# What a version may say


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    id: Nr", "    idd: Nr", "tables.species_columns.idd: unknown parameter, got 'Nr'; did you mean id?"),
        (
            "    id: Nr",
            "    id: #",
            "tables.species_columns.id: expected text, got none: what begins with # needs quotes",
        ),
        ("    id: Nr", "    id: 5", "tables.species_columns.id: expected text, got 5: put it in quotes"),
        (
            "    id: Nr",
            "    typo: Nr",
            "tables.species_columns.typo: unknown parameter, got 'Nr'; did you mean type_2?",
        ),
        (
            "hp: Vivo",
            "HP: Vivo",
            "tables.species_columns.stats.HP: expected a name of a-z, 0-9 and _ that begins with a letter, got 'HP'",
        ),
        ("attack:", "hp:", "tables.species_columns.stats.hp: expected this key once, got it 2 times"),
        ("    winner: Venkinto", "    ", "tables.battles_columns.winner: expected text, got none"),
        (
            "  battles_file",
            "  battle_file",
            "tables.battle_file: unknown parameter, got 'docs/own-battles/battles.csv'; did you mean battles_file?",
        ),
        (
            "features: raw",
            "features: mechanics",
            "features: expected raw, as dataset is tables, got 'mechanics', which "
            "needs the game's own species and moves",
        ),
        ("dataset: tables", "dataset: v3", "dataset: expected tables, as the files of `tables` are given, got 'v3'"),
    ],
)
def test_faults_of_a_mapping_are_named(tmp_path, monkeypatch, root, old, new, expected):
    text = (root / "params" / "own.yaml").read_text()
    assert old in text
    (tmp_path / "own.yaml").write_text(text.replace(old, new, 1))
    monkeypatch.setenv("POKEBATTLE_PARAMS", str(tmp_path))
    with pytest.raises(ParamsError) as caught:
        load_params({"version": "own"})
    assert str(caught.value).startswith(f"{tmp_path.name}/own.yaml, {expected}")
    assert "\n" not in str(caught.value)


def test_the_page_shows_a_mapping_that_is_one(root):
    page = (root / "docs" / "own-battles.md").read_text()
    shown = yaml.safe_load(re.search("```yaml\n(.*?)```", page, re.DOTALL)[1])
    assert Tables(**shown["tables"]).species_columns.id == "#"
    assert shown["features"] == "raw"


def test_tables_are_required_and_only_where_they_are_read():
    with pytest.raises(ParamsError, match="tables: expected species_file, battles_file, species_columns, battles_col"):
        load_params({"version": "v3", "dataset": "tables"})
    assert "tables" not in load_params({"version": "v3"}).model_dump()
    assert json.dumps(load_params({"version": "own"}).model_dump()["tables"])
