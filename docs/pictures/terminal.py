#!/usr/bin/env python3
"""A terminal's content, as `tmux capture-pane -p -e` prints it, as an SVG: terminal.py < text > picture.svg"""
import html
import re
import sys

CELL, LINE, EDGE = 7.8, 17, 12
PAPER, INK = "#1e1f24", "#d8d7d2"
BASIC = ["#45474d", "#d2604c", "#6fae6a", "#d3a445", "#5b8fd6", "#a883c9", "#4fb0b5", "#d8d7d2"]
BRIGHT = ["#7c8088", "#ea7d66", "#8fce84", "#f0c777", "#8fb6ef", "#c9a6e6", "#76cfd4", "#ffffff"]
# The first sixteen of the 256 are the same, and so is what tmux makes of true colour here.
COLOURS = BASIC + BRIGHT


def colours(codes, ink, paper, flags):
    """What a sequence of SGR codes makes of the colours."""
    codes = [int(code or 0) for code in codes.split(";")]
    while codes:
        code = codes.pop(0)
        if code == 0:
            ink, paper, flags = None, None, set()
        elif code in (1, 2, 7):
            flags = flags | {code}
        elif code in (22, 27):
            flags = flags - ({1, 2} if code == 22 else {7})
        elif code in (38, 48) and codes[:1] == [5]:
            colour = COLOURS[codes[1] % 16]
            codes = codes[2:]
            ink, paper = (colour, paper) if code == 38 else (ink, colour)
        elif 30 <= code < 38 or 90 <= code < 98:
            ink = COLOURS[code - 30 if code < 90 else code - 90 + 8]
        elif 40 <= code < 48 or 100 <= code < 108:
            paper = COLOURS[code - 40 if code < 100 else code - 100 + 8]
        elif code in (39, 49):
            ink, paper = (None, paper) if code == 39 else (ink, None)
    return ink, paper, flags


lines = sys.stdin.read().rstrip("\n").split("\n")
width = max(len(re.sub(r"\x1b\[[0-9;]*m|[\x0e\x0f]", "", line)) for line in lines)
size = (width * CELL + 2 * EDGE, len(lines) * LINE + 2 * EDGE)
out = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" '
    'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
    f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
]
ink, paper, flags = None, None, set()
for row, line in enumerate(lines):
    column, y = 0, EDGE + row * LINE
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            ink, paper, flags = colours(part[2:-1], ink, paper, flags)
            continue
        text = re.sub(r"[\x0e\x0f]", "", part)
        if not text:
            continue
        fore, back = (ink or INK), paper
        if 7 in flags:
            fore, back = (paper or PAPER), (ink or INK)
        x, wide = EDGE + column * CELL, len(text) * CELL
        if back:
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{LINE}" fill="{back}"/>')
        if text.strip():
            weight = ' font-weight="bold"' if 1 in flags else ""
            out.append(
                f'<text x="{x:.1f}" y="{y + 13}" fill="{fore}"{weight} textLength="{wide:.1f}" '
                f'xml:space="preserve">{html.escape(text)}</text>'
            )
        column += len(text)
print("\n".join(out + ["</svg>"]))
