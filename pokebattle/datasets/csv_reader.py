"""Read CSV files with the row numbers of a spreadsheet, so that an error names the exact cell.

Cells can be separated by commas, semicolons, tabs or bars, and lines can have any line ending. The text can be UTF-8
with or without a byte order mark, or UTF-16 with one. An error is one line: file, row (counted from 1 at the top of the
file), column, what was expected, what was found.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import pandas as pd

from pokebattle.errors import UserError, did_you_mean
from pokebattle.paths import project

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
POINT = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
COMMA = r"[-+]?\d+,\d+"
ALIKE = 0.5  # similarity from which an error message suggests a name
HEADERS = 65_536  # characters at the beginning of a file in which the headers are searched
THOUSANDS = r"[-+]?[1-9]\d{0,2},\d{3}"  # ambiguous: the comma may separate thousands or decimals


class TablesError(UserError, ValueError):
    """An unusable file of species or battles. The message is one line: file, row, column, expected, got, nearest."""


@dataclass(frozen=True)
class Sheet:
    """The cells of a file, without surrounding spaces and without blank rows.

    Attributes
    ----------
    label : str
        The path that was given to `read_sheet`.
    separator : str
        Character between cells.
    header_row : int
        Row number of the headers.
    headers : list of str
    cells : DataFrame of str
        Index row number, columns position from 0.
    sha256 : str
        Of the file's bytes.
    """

    label: str
    separator: str
    header_row: int
    headers: list[str]
    cells: pd.DataFrame = field(repr=False)
    sha256: str

    def column(self, header: str, key: str) -> pd.Series:
        """Return the column under a header. Its name is the header as in the file.

        Parameters
        ----------
        header : str
            Case and spaces do not matter.
        key : str
            Key of the parameters that contains `header`, for error messages.

        Raises
        ------
        TablesError
            If the file does not contain the header, or contains it more than once.
        """
        where = f"{self.label}, row {self.header_row}: expected the header {header!r} ({key})"
        numbers = [number for number, name in enumerate(self.headers) if plain(name) == plain(header)]
        if not numbers:
            shown = cut(", ".join(name for name in self.headers if name))
            raise TablesError(f"{where}, got {shown}{did_you_mean(header, self.headers, ALIKE, plain)}")
        if len(numbers) > 1:
            raise TablesError(f"{where} once, got it {len(numbers)} times")
        return self.cells[numbers[0]].rename(self.headers[numbers[0]])

    def numbers(self, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
        """Read columns as numbers. A column of TRUE and FALSE becomes 1 and 0.

        Parameters
        ----------
        columns : mapping of str to Series
            Columns of this file, by the name that they get in the result. All must use the same decimal mark.

        Raises
        ------
        TablesError
            If a cell is not a finite number, or it is unclear whether commas separate thousands or decimals.
        """
        with_comma = [column[column.str.fullmatch(COMMA)] for column in columns.values()]
        comma = any(len(cells) for cells in with_comma)
        if comma and all(cells.str.fullmatch(THOUSANDS).all() for cells in with_comma):
            for cells in with_comma:
                self.refuse(cells, "a number in which it is clear whether the comma separates thousands or decimals")
        return pd.DataFrame({name: self._numbers(column, comma) for name, column in columns.items()})

    def _numbers(self, column: pd.Series, comma: bool) -> pd.Series:
        flags = column.str.lower().map({"true": 1.0, "false": 0.0})
        if flags.notna().all():
            return flags
        fits = column.str.fullmatch(rf"{COMMA}|[-+]?\d+" if comma else POINT)
        self.refuse(column[~fits], "a number with a decimal comma, as elsewhere in this file" if comma else "a number")
        numbers = column.str.replace(",", ".").astype("float64")
        self.refuse(column[numbers.abs() > np.finfo(np.float32).max], "a number below 3e38")
        return numbers

    def refuse(self, cells: pd.Series, expected: str, known: Iterable[str] = ()) -> None:
        """Raise an error for the first of the given cells. Do nothing if there are none.

        Parameters
        ----------
        cells : Series of str
            Invalid cells of one column.
        expected : str
            What was expected, for the message.
        known : iterable of str
            Valid values; the message suggests the nearest one.

        Raises
        ------
        TablesError
            If `cells` is not empty.
        """
        if cells.empty:
            return
        got = cut(repr(cells.iloc[0])) if cells.iloc[0] else "nothing"
        more = f" ({len(cells) - 1} more like it)" if len(cells) > 1 else ""
        raise TablesError(
            f"{self.label}, row {cells.index[0]}, column {cells.name}: expected {expected}, got {got}"
            f"{did_you_mean(cells.iloc[0], known, ALIKE, plain)}{more}"
        )


def read_sheet(label: str, encoding: str | None = None) -> Sheet:
    """Read a CSV file.

    Parameters
    ----------
    label : str
        Path, absolute or relative to the project.
    encoding : str, optional
        Encoding of files that are neither UTF-8 nor UTF-16 with a byte order mark.

    Raises
    ------
    TablesError
        If the file does not exist, cannot be decoded, or is not a table with headers.
    """
    path = project() / label
    try:
        content = path.read_bytes()
    except OSError as error:
        beside = [file.name for file in path.parent.glob(f"*{path.suffix}")]
        near = did_you_mean(path.name, beside, ALIKE, plain)
        raise TablesError(f"{label}: expected a CSV file, got {error.strerror}{near}") from None
    text = _decoded(content, label, encoding)
    separator = _separator(text)
    records = _records(text, label, separator)
    if len(records) < 2:
        raise TablesError(f"{label}: expected headers and rows below them, got {len(records) or 'no'} rows")
    (header_row, names), *rows = records.items()
    headers = [" ".join(name.split()) for name in names]
    width = len(headers)
    for row, cells in rows:
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise TablesError(f"{label}, row {row}: expected {width} cells, one per header, got {len(cells)}")
    table = pd.DataFrame([cells[:width] for _, cells in rows], index=[row for row, _ in rows], dtype="str")
    stripped = table.apply(lambda column: column.str.strip())
    return Sheet(label, separator, header_row, headers, stripped, sha256(content).hexdigest())


def _decoded(content: bytes, label: str, encoding: str | None) -> str:
    if content.startswith(b"PK\x03\x04"):
        raise TablesError(f"{label}: expected a CSV file, got a workbook: save its sheet as CSV UTF-8")
    name = _encoding(content, encoding)
    try:
        return content.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise TablesError(
            f"{label}, row {row}: expected {name} text, got the byte {content[error.start]:#04x}: save "
            "it as UTF-8, or name its encoding, e.g. tables.encoding: cp1252"
        ) from None


def _encoding(content: bytes, named: str | None) -> str:
    """Return the encoding: that of the byte order mark, else UTF-8 if the content is valid UTF-8, else `named`."""
    try:
        codecs.lookup(named or "utf-8")
    except LookupError:
        raise TablesError(f"tables.encoding: expected an encoding such as utf-8 or cp1252, got {named!r}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if named is None or content.startswith(codecs.BOM_UTF8):
        return "utf-8"
    try:
        return named if "\0" in content.decode("utf-8") else "utf-8"
    except UnicodeDecodeError:
        return named


def _separator(text: str) -> str:
    """Return the separator from a first line `sep=;`, as written by spreadsheets, else the one with most headers."""
    if line := re.match(r"sep=(.)\r?\n", text, re.IGNORECASE):
        return line[1]
    lines = text.lstrip("\r\n")[:HEADERS]
    fields = {mark: len(next(csv.reader(io.StringIO(lines, newline=""), delimiter=mark), [])) for mark in SEPARATORS}
    return max(fields, key=fields.__getitem__)


def _records(text: str, label: str, separator: str) -> dict[int, list[str]]:
    """Return the cells of every row that is not blank, by row number."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    records, row = {}, 0
    try:
        for row, cells in enumerate(lines, 1):
            mark = row == 1 and re.fullmatch("sep=", cells[0] if cells else "", re.IGNORECASE)
            if any(cell.strip() for cell in cells) and not mark:
                records[row] = cells
    except csv.Error as error:
        raise TablesError(
            f"{label}, row {row + 1}: expected a quote at both ends of a cell or at none, got {error}"
        ) from None
    return records


def plain(text: str) -> str:
    """Normalise a header, an id or a name for comparison.

    Case, repeated and surrounding spaces, and Unicode variants (NFKC) are removed; 007 and 7.0 become 7.

    Parameters
    ----------
    text : str
    """
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    number = re.fullmatch(r"0*(\d+)([.,]0+)?", words)
    return number[1] if number else words


def plains(column: pd.Series) -> pd.Series:
    """Apply `plain` to every cell.

    Parameters
    ----------
    column : Series of str
    """
    return column.map({cell: plain(cell) for cell in column.unique()})


def cut(text: str) -> str:
    """Shorten a text to 120 characters, for error messages.

    Parameters
    ----------
    text : str
    """
    return text if len(text) <= 120 else f"{text[:117]}..."
