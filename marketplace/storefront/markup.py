"""Strangers' Markdown as HTML that can neither run, load nor pretend.

HTML in the text is shown as text, links go to https, mailto or this page only, pictures become links (nothing is
loaded from elsewhere), and headings begin below the page's own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MOST_CHARACTERS = 100_000
"""Longer texts are cut: a page must stay a page."""
_VERSION = re.compile(r"^#{1,3}\s*\[?v?(?P<version>\d+\.\d+\.\d+[^\s\]]*)\]?(?P<rest>.*)$", re.MULTILINE)


def render_markdown(text: str, *, below: int = 2, title: str | None = None) -> Markup:
    """``text`` as HTML. Its largest heading becomes one of level ``below`` + 1; a first heading that only repeats
    ``title`` is left out."""
    tokens = _reader().parse(text[:MOST_CHARACTERS])
    if title and len(tokens) > 2 and tokens[0].type == "heading_open" and _same(tokens[1].content, title):
        tokens = tokens[3:]
    levels = [int(token.tag[1]) for token in tokens if token.type == "heading_open"]
    shift = below + 1 - min(levels, default=1)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + shift, 6)}"
        if token.type == "inline":
            token.children = _tamed(token.children or [])
    html = _reader().renderer.render(tokens, _reader().options, {})
    # A wide table or a long line scrolls by itself, and can be reached with the keyboard for that.
    html = html.replace("<table>", '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>')
    html = html.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    return Markup(html)  # noqa: S704 - the renderer escapes every text, and html is off


def changes_of(changelog: str, version: str) -> str:
    """The part of a changelog that is about one version, or an empty text."""
    found = list(_VERSION.finditer(changelog))
    for at, match in enumerate(found):
        if match["version"].rstrip(":") == version:
            end = found[at + 1].start() if at + 1 < len(found) else len(changelog)
            return changelog[match.end() : end].strip()
    return ""


def safe_link(address: str | None) -> str | None:
    """``address`` if a page may link to it, else None."""
    return address if address and re.match(r"^https://[^\s\"'<>\\]+$", address) else None


@lru_cache(maxsize=1)
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])


def _tamed(children: Sequence[Token]) -> list[Token]:
    """Inline tokens with links made safe and pictures made links."""
    from markdown_it.token import Token

    found: list[Token] = []
    dropped = 0
    inside = False
    for child in children:
        if child.type == "image":
            source, alt = str(child.attrs.get("src", "")), child.content or "picture"
            link = None if inside else safe_link(source)
            words = Token("text", "", 0, content=f"[{alt}]")
            found += [_link(link), words, Token("link_close", "a", -1)] if link else [words]
        elif child.type == "link_open":
            address = str(child.attrs.get("href", ""))
            link = safe_link(address) or (address if address.startswith(("#", "mailto:")) else None)
            if link is None:
                dropped += 1
            else:
                found.append(_link(link))
                inside = True
        elif child.type == "link_close":
            if dropped:
                dropped -= 1
            else:
                found.append(child)
                inside = False
        else:
            found.append(child)
    return found


def _link(address: str) -> Token:
    from markdown_it.token import Token

    attributes: dict[str, Any] = {"href": address}
    if not address.startswith("#"):
        attributes["rel"] = "nofollow noopener noreferrer ugc"
    return Token("link_open", "a", 1, attrs=attributes)


def _same(left: str, right: str) -> bool:
    return re.sub(r"\W", "", left).lower() == re.sub(r"\W", "", right).lower()
