"""Results as text for a terminal and as Markdown for the documentation."""

from __future__ import annotations

from typing import Any, Final

from benchmarks import cold_start, kernel, live, scaling, scorer, verdicts
from benchmarks.measure import Table

__all__ = ["BEGIN", "END", "PARTS", "into_document", "markdown", "text"]

PARTS: Final = {
    "kernel": kernel,
    "verdicts": verdicts,
    "scorer": scorer,
    "live": live,
    "scaling": scaling,
    "compile": cold_start,
}
"""In the order in which they run."""

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


def text(result: dict[str, Any]) -> str:
    """All tables, their columns aligned, and what was skipped and why."""
    lines = [_where(result), ""]
    for table in _tables(result):
        lines += [f"== {table.title}", *_aligned(table), *table.notes, ""]
    lines += [f"{name}: skipped. {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines).rstrip()


def markdown(result: dict[str, Any]) -> str:
    """The same as the generated part of docs/performance.md."""
    lines = [_where(result), ""]
    for table in _tables(result):
        lines += [f"### {table.title}", ""]
        lines.append("| " + " | ".join(table.columns) + " |")
        lines.append("|---" + "|---:" * (len(table.columns) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines += ["", *(f"{note}  " for note in table.notes)]
        if table.notes:
            lines.append("")
    lines += [f"{name}: skipped. {why}  " for name, why in result["skipped"].items()]
    return "\n".join(line.rstrip() if not line.endswith(".  ") else line for line in lines).strip()


def into_document(document: str, generated: str) -> str:
    """The document with what stands between BEGIN and END replaced; without them only that."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        return f"{BEGIN}\n\n{generated}\n\n{END}\n"
    return f"{head}{BEGIN}\n\n{generated}\n\n{END}{tail}"


def _tables(result: dict[str, Any]) -> list[Table]:
    return [
        table for name, figures in result["parts"].items() for table in PARTS[name].tables(figures)
    ]


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    runs = result["runs"]
    how = (
        f"Medians of {runs} runs in turn, least and most in brackets; ratios turn by turn."
        if runs > 1
        else "One run of each: a quick look, without a spread."
    )
    return (
        f"{machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, load {machine['load'][0]} before; {machine['system']}, "
        f"Python {machine['python']}, {libraries}. {how}"
    )


def _aligned(table: Table) -> list[str]:
    rows = [table.columns, *table.rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
