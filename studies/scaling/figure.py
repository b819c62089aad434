"""The study's picture, an SVG without any library: three small charts on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 220, 56, 40, 84
COLOURS = ("#4269d0", "#d1751d", "#3a8f5c")
Series = tuple[str, Sequence[float], str, str]  # name, values, colour, dashes


def draw(results: dict[str, Any]) -> str:
    """The picture of `results.json`: time of sampling, scaling, and lag."""
    by = {
        (kind, name): [c for c in results[kind] if c["distribution"] == name]
        for kind in ("strong", "weak")
        for name in ("measured", "long tail")
    }
    servers = [c["servers"] for c in by["strong", "measured"]]

    def series(kind: str, name: str, label: str, value: Any, colour: int, dash: str = "") -> Series:
        return label, [value(c) for c in by[kind, name]], COLOURS[colour], dash

    growth = [
        series("strong", name, f"{name}, {words}", lambda c, g=g: c["sampling"][g], colour, dash)
        for colour, name in enumerate(("measured", "long tail"))
        for g, words, dash in (("level", "level by level", "5 3"), ("continuous", "continuous", ""))
    ]
    hours = [
        series("weak", name, f"{name}, {lag}", lambda c, lag=lag: c["hours_per_million"][lag], colour, dash)
        for colour, name in enumerate(("measured", "long tail"))
        for lag, dash in (("lag 0", "5 3"), ("lag 1", ""))
    ]
    charts = [
        ("Sampling a step of 64 questions, seconds", growth),
        ("A million questions, hours (8 questions a server and step)", hours),
    ]
    width = len(charts) * (LEFT + WIDTH + GAP)
    parts = [_chart(title, servers, lines, i * (LEFT + WIDTH + GAP)) for i, (title, lines) in enumerate(charts)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 120}" '
        'font-family="sans-serif" font-size="11" role="img">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _chart(title: str, servers: Sequence[int], lines: Sequence[Series], offset: int) -> str:
    values = [value for _, series, _, _ in lines for value in series]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(count: float) -> float:
        return offset + LEFT + WIDTH * math.log2(count) / math.log2(servers[-1])

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - (math.log10(value) - low) / max(1, high - low))

    parts = [f'<text x="{offset + 8}" y="20" font-weight="bold">{title}</text>']
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<path d="M{x(1):.0f} {at:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(1) - 6:.0f}" y="{at + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
    bottom = TOP + HEIGHT
    parts += [f'<text x="{x(n):.0f}" y="{bottom + 16}" text-anchor="middle">{n}</text>' for n in servers]
    parts.append(f'<text x="{x(8):.0f}" y="{bottom + 32}" text-anchor="middle">servers</text>')
    for index, (name, series, colour, dash) in enumerate(lines):
        points = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in zip(servers, series, strict=True))
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" {style}/>')
        at = bottom + 52 + 16 * index
        parts.append(f'<path d="M{x(1):.0f} {at - 4}h28" {style}/><text x="{x(1) + 36:.0f}" y="{at}">{name}</text>')
    return "\n".join(parts)
