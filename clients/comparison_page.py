"""Comparisons for people: one table per prompt, a column for each that answers, filled as the text comes.

Where columns would be too narrow to read, the answers stand below each other instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from switchyard.clients.comparing import Compared, Contender, Said, Standing
from switchyard.clients.prompts import Prompt
from switchyard.clients.render import lined_table, row, safe

_NARROWEST: Final = 28
"""Characters of a column below which text is hard to read."""


class ComparisonPage:
    """Shows prompts one after another; what is finished stays above."""

    def __init__(self, contenders: Sequence[Contender], console: Console) -> None:
        self._contenders = contenders
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._texts: list[str] = []
        self._prompt: Prompt | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, prompt: Prompt) -> None:
        """Starts an empty table for a prompt."""
        self._prompt, self._texts = prompt, [""] * len(self._contenders)

    def heard(self, place: int, text: str) -> None:
        """Shows the text so far of one of them."""
        self._texts[place] = text
        if self._prompt is not None and self._live.is_started:
            cells: list[RenderableType] = [Text(safe(one, lines=True)) for one in self._texts]
            self._live.update(self._table(self._prompt, cells), refresh=True)

    def end(self, found: Compared) -> None:
        """Prints the finished table, which stays."""
        cells = [_cell(one) for one in found.answers]
        self._live.update(Text(""))
        self._console.print(self._table(found.prompt, cells))

    def _table(self, prompt: Prompt, cells: Sequence[RenderableType]) -> RenderableType:
        names = [one.asked for one in self._contenders]
        above = [Text(safe(prompt.text, lines=True), style="bold")]
        if prompt.expected is not None:
            above.append(Text(f"expected  {safe(prompt.expected, lines=True)}", style="dim"))
        is_wide = self._console.width // len(names) >= _NARROWEST
        answers = _side_by_side(names, cells) if is_wide else _below_each_other(names, cells)
        return Group(*above, answers, Text(""))


def _side_by_side(names: Sequence[str], cells: Sequence[RenderableType]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 2, 0, 0), show_edge=False)
    for name in names:
        table.add_column(Text(safe(name)), ratio=1, overflow="fold")
    table.add_row(*cells)
    return table


def _below_each_other(names: Sequence[str], cells: Sequence[RenderableType]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", overflow="fold", max_width=_NARROWEST)
    table.add_column(overflow="fold")
    for name, cell in zip(names, cells, strict=True):
        table.add_row(Text(safe(name)), cell)
    return table


def _cell(one: Said) -> Text:
    if one.answer is None:
        return Text.assemble((f"{one.reason} ", "bold red"), (safe(one.message, lines=True), "red"))
    text = safe(one.answer.text, lines=True)
    if one.is_exact is None:
        return Text(text)
    return Text.assemble(("✓ ", "green"), text) if one.is_exact else Text.assemble(("✗ ", "red"), text)


def standings_table(found: Sequence[Standing]) -> Table:
    """One line per contender over all prompts."""
    knows = any(one.expected for one in found)
    exact = [">exact"] if knows else []
    table = lined_table("", *exact, f">same as {found[0].asked}", ">failed", ">tokens", ">TTFT ms", "served by")
    for one in found:
        row(
            table,
            one.asked,
            *([f"{one.exact} of {one.expected}"] if knows else []),
            str(one.as_first),
            str(one.failed),
            str(one.tokens),
            f"{one.time_to_first_token_s * 1000:.0f}",
            one.served,
        )
    return table
