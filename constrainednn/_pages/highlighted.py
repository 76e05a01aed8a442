"""Python source with its keywords, texts, numbers and comments marked."""

import io
import keyword
import tokenize
from html import escape


def highlighted(source: str) -> str:
    """Source as HTML, escaped; unmarked from where it is no Python."""
    lines = source.splitlines(keepends=True)
    parts, row, column = [], 1, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            kind = _kind(token)
            if kind:
                parts.append(escape(_between(lines, (row, column), token.start)))
                parts.append(f'<span class="{kind}">{escape(token.string)}</span>')
                row, column = token.end
    except (tokenize.TokenError, SyntaxError):
        pass
    parts.append(escape(_between(lines, (row, column), (len(lines) + 1, 0))))
    return "".join(parts)


def _kind(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return "word" if keyword.iskeyword(token.string) else ""
    kinds = {tokenize.STRING: "quote", tokenize.NUMBER: "digit", tokenize.COMMENT: "comment"}
    return kinds.get(token.type, "")


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text from one place (row from 1, column from 0) to another."""
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right] if first <= len(lines) else ""
    middle = lines[first : last - 1]
    ending = lines[last - 1][:right] if last <= len(lines) else ""
    return "".join([lines[first - 1][left:] if first <= len(lines) else "", *middle, ending])
