"""Columns of a table in a narrow terminal: a cell is wrapped between its words and never within one."""

from collections.abc import Sequence

_FRAME = 3  # rich's frame and the blanks beside a cell, per column, and one more


def column_widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Of a framed table in `width` columns of a terminal. rows: headings and cells, equally many in each.

    No column is narrower than its longest word; what is left goes to whichever has the tallest cell, while it has.
    """
    columns = list(zip(*rows, strict=True))
    wanted = [max(map(len, column)) for column in columns]
    widths = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    left = width - _FRAME * len(columns) - 1 - sum(widths)
    for _ in range(max(left, 0)):
        widths[_tallest(widths, wanted)] += 1
    return [min(pair) for pair in zip(widths, wanted, strict=True)]


def _tallest(widths: Sequence[int], wanted: Sequence[int]) -> int:
    return max(range(len(widths)), key=lambda i: wanted[i] / max(widths[i], 1))
