"""Read the assignments of a parameters cell without executing it. Standard library only."""

import ast
from collections.abc import Iterator
from typing import Any

UNKNOWN: Any = object()  # the value is not a literal


def statements(source: str) -> list[ast.stmt]:
    """Return the statements of a cell; an empty list if it cannot be parsed, for example if it is nested too deeply.

    Parameters
    ----------
    source : str
        Python source.
    """
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def assignments(source: str) -> Iterator[tuple[str, str | None, Any]]:
    """Yield name, annotation and value of every assignment at the top level of a cell.

    Parameters
    ----------
    source : str
        Python source. If it cannot be parsed, nothing is yielded.

    Yields
    ------
    name : str
    annotation : str or None
    value : object
        `UNKNOWN` if it is not a literal.
    """
    for statement in statements(source):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, ast.unparse(statement.annotation).strip("'\""), _literal(statement.value)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                whole = isinstance(target, ast.Name)
                for node in ast.walk(target):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        yield node.id, None, _literal(statement.value) if whole else UNKNOWN


def _literal(node: ast.expr | None) -> Any:
    try:
        return UNKNOWN if node is None else ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN
