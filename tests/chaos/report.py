"""What `make chaos` measured, as tables in Markdown that can go into the documentation."""

from collections.abc import Sequence

Row = Sequence[object]
TABLES: dict[str, tuple[Row, list[Row]]] = {}


def add(title: str, columns: Row, *rows: Row) -> None:
    """Adds rows to the table of that title, which is shown at the end of the session."""
    TABLES.setdefault(title, (columns, []))[1].extend(rows)


def tables() -> list[str]:
    return [table(title, columns, rows) for title, (columns, rows) in TABLES.items()]


def table(title: str, columns: Row, rows: Sequence[Row]) -> str:
    lines = [f"\n{title}\n", line(columns), "|" + "---|" * len(columns), *map(line, rows)]
    return "\n".join(lines)


def line(cells: Row) -> str:
    return "| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"
