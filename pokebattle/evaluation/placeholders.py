"""Tables of one line that say why a result is missing, so that notebooks need no special cases."""

import pandas as pd

NOTE = "note"


def note(text: str) -> pd.DataFrame:
    """Return a table whose only cell is a sentence.

    Parameters
    ----------
    text : str
        Why there is nothing to show.
    """
    return pd.DataFrame({NOTE: [text]}, index=[""])


def is_note(table: pd.DataFrame) -> bool:
    """Return whether a table is from `note`.

    Parameters
    ----------
    table : DataFrame
    """
    return list(table.columns) == [NOTE]
