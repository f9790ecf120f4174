"""The table of `python cli.py models`; no torch, and no checkpoint is looked at.

print(family_table())
"""

from models.families import FAMILIES, Family

HEAD = ("family", "frames/s", "hears", "layers", "exact engines", "licence", "hub ids")


def family_table() -> str:
    """A row a family, with a line for each further hub id; `hears` is how much of a clip it hears."""
    rows = [HEAD, *(row for family in FAMILIES for row in _rows(family))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _rows(family: Family) -> list[tuple[str, ...]]:
    first, *others = family.hub_ids
    known = (family.name, family.frames_per_second, family.hears, family.layers, " ".join(family.engines))
    return [(*known, family.licence, first), *(("",) * 6 + (hub_id,) for hub_id in others)]
