"""What people see: progress on stderr, one summary table on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table


@contextmanager
def busy(title: str, *, quiet: bool) -> Iterator[None]:
    """A spinner on stderr while something of unknown length runs, if that is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(title):
        yield


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr if that is a terminal; yields an update function (done, total or None)."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str, *, quiet: bool) -> None:
    """One line on stderr, after the work is done: before that, stderr is for the one line of an error."""
    if not quiet:
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def print_rows(title: str, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ()) -> None:
    """A table on stdout."""
    table = Table(title=title, show_header=bool(header), title_justify="left", expand=False)
    rows = list(rows)
    for i in range(len(rows[0]) if rows else len(header)):
        table.add_column(header[i] if header else "", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell).replace("[", r"\[") for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(table)
