"""Charts, drawn on the server as SVG: no script, no colours of their own (the stylesheet has them).

Each has a sentence for those who do not see it; numbers stand beside it as text.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from marketplace.storefront.words import hue, initials

WIDTH, HEIGHT = 240.0, 48.0
TILES = ("#3552c4", "#0f766e", "#9a5b09", "#a5379b", "#2f7a34", "#b3392f")
"""White letters can be read on each of them."""


def trend(values: Sequence[float], words: str) -> Markup:
    """A line over time with the area below it. ``words`` says what it shows."""
    if len(values) < 2:
        values = [0.0, *(values or [0.0])]
    top = max(max(values), 1.0)
    step = WIDTH / (len(values) - 1)
    points = [(at * step, HEIGHT - 3 - value / top * (HEIGHT - 8)) for at, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"0,{HEIGHT:.0f} {line} {WIDTH:.0f},{HEIGHT:.0f}"
    last_x, last_y = points[-1]
    return Markup(
        '<svg class="trend" viewBox="-3 0 {w} {h}" role="img" aria-label="{words}" preserveAspectRatio="none">'
        '<polygon class="trend-area" points="{area}"/>'
        '<polyline class="trend-line" points="{line}" vector-effect="non-scaling-stroke"/>'
        '<line class="trend-end" x1="{x}" y1="{y}" x2="{x}" y2="{y}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(
        w=f"{WIDTH + 6:.0f}", h=f"{HEIGHT:.0f}", words=words, area=area, line=line, x=f"{last_x:.1f}", y=f"{last_y:.1f}"
    )


def share_bar(share: float, hue: int = 0) -> Markup:
    """A bar for a share between 0 and 1; the number stands beside it, so it is hidden from screen readers."""
    width = max(0.0, min(share, 1.0)) * 100
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="bar-whole" width="100" height="6"/><rect class="bar-part hue-{hue}" width="{width}" height="6"/>'
        "</svg>"
    ).format(hue=hue, width=f"{width:.1f}")


def percentiles(marks: Sequence[float], most: float) -> Markup:
    """Where percentiles lie between 0 and ``most``: a line from the first to the last, a dot for each."""
    at = [round(min(mark / most, 1.0) * 92 + 4, 1) if most else 4.0 for mark in marks]
    dots = Markup("").join(
        Markup('<circle class="dot dot-{n}" cx="{x}" cy="6" r="3"/>').format(n=n, x=x) for n, x in enumerate(at)
    )
    return Markup(
        '<svg class="range" viewBox="0 0 100 12" aria-hidden="true"><line class="range-whole" x1="4" x2="96" y1="6" '
        'y2="6"/><line class="range-part" x1="{a}" x2="{b}" y1="6" y2="6"/>{dots}</svg>'
    ).format(a=at[0] if at else 4, b=at[-1] if at else 4, dots=dots)


def letters(name: str, plugin: str) -> bytes:
    """A drawing that stands for a plugin without an icon: its letters, always on the same colour."""
    return (
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" '
            'fill="{colour}"/><text x="32" y="41" text-anchor="middle" fill="#fff" font-size="26" font-weight="700" '
            'font-family="system-ui, sans-serif">{letters}</text></svg>'
        )
        .format(colour=TILES[hue(plugin)], letters=initials(name))
        .encode()
    )
