"""Rows under titles and amounts of bytes, for people; a line stays a line where a program reads it."""

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print it. What a terminal would take for more than text is replaced."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for title in titles:
        shown.add_column(title, overflow="fold")
    for row in rows:
        shown.add_row(*(Text("".join(char if char.isprintable() else "?" for char in cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)
    console.print(shown)


def amount(size: int | None) -> str:
    """Bytes as people say them; empty: unknown."""
    if size is None:
        return ""
    number, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{number:.1f} {units[0]}"
