"""A model card as HTML: the little Markdown that our cards use, and every character of the text escaped first.

Headings, paragraphs, lists, tables, bold, emphasis, code. No raw HTML, no pictures, no links that lead away.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final

from markupsafe import Markup, escape

_RULE: Final = re.compile(r"^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
_HEADING: Final = re.compile(r"^(#{1,6})\s+(.*)$")
_ITEM: Final = re.compile(r"^\s*[-*]\s+(.*)$")
_NUMBERED: Final = re.compile(r"^\s*\d+[.)]\s+(.*)$")
_INLINE: Final = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), r"<em>\1</em>"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
)
LINES_MAX: Final = 5_000


def render(text: str, top_level: int = 2) -> Markup:
    """top_level: which HTML heading the text's first level becomes."""
    return Markup("\n").join(_blocks(text.splitlines()[:LINES_MAX], top_level))


def _blocks(lines: Sequence[str], top: int) -> Iterator[Markup]:
    i = 0
    numbers = count(1)
    while i < len(lines):
        line = lines[i]
        if not line.strip():
            i += 1
        elif heading := _HEADING.match(line):
            level = min(6, top + len(heading[1]) - 1)
            yield Markup("<h{0}>{1}</h{0}>").format(level, _inline(heading[2]))
            i += 1
        elif "|" in line and i + 1 < len(lines) and _RULE.match(lines[i + 1]):
            end = _end(lines, i + 2, lambda one: "|" in one)
            yield _table(line, lines[i + 1], lines[i + 2 : end], next(numbers))
            i = end
        elif _ITEM.match(line) or _NUMBERED.match(line):
            pattern = _ITEM if _ITEM.match(line) else _NUMBERED
            end = _end(lines, i, lambda one: bool(pattern.match(one)))  # noqa: B023  used before the next turn
            items = Markup("").join(
                Markup("<li>{}</li>").format(_inline(match[1])) for one in lines[i:end] if (match := pattern.match(one))
            )
            yield Markup("<{0}>{1}</{0}>").format("ul" if pattern is _ITEM else "ol", items)
            i = end
        else:
            end = _end(lines, i + 1, lambda one: bool(one.strip()) and not _begins_another(one))
            yield Markup("<p>{}</p>").format(_inline(" ".join(one.strip() for one in lines[i:end])))
            i = end


def _begins_another(line: str) -> bool:
    return bool(_HEADING.match(line) or _ITEM.match(line) or _NUMBERED.match(line))


def _end(lines: Sequence[str], start: int, belongs: Callable[[str], bool]) -> int:
    i = start
    while i < len(lines) and belongs(lines[i]):
        i += 1
    return i


def _inline(text: str) -> Markup:
    escaped = str(escape(text.strip()))
    for pattern, replacement in _INLINE:
        escaped = pattern.sub(replacement, escaped)
    return Markup(escaped)  # noqa: S704  escaped above; what was put in is ours


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _table(head: str, rule: str, rows: Sequence[str], number: int) -> Markup:
    right = [cell.endswith(":") and not cell.startswith(":") for cell in _cells(rule)]

    def row(line: str, tag: str) -> Markup:
        made = Markup("")
        for i, cell in enumerate(_cells(line)):
            kind = Markup(' class="number"') if i < len(right) and right[i] else Markup("")
            name = tag if cell else "td"  # an empty heading says nothing
            scope = Markup(' scope="col"') if name == "th" else Markup("")
            made += Markup("<{0}{1}{2}>{3}</{0}>").format(name, scope, kind, _inline(cell))
        return Markup("<tr>{}</tr>").format(made)

    body = Markup("").join(row(line, "td") for line in rows)
    table = Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(row(head, "th"), body)
    wide = '<div class="scroll" tabindex="0" role="group" aria-label="Table {}">{}</div>'  # scrolled by its own keys
    return Markup(wide).format(number, table)  # noqa: S704  a constant
