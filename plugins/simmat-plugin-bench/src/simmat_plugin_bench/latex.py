r"""Tables as LaTeX, for documents with `\usepackage{booktabs}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simmat_plugin_report.page import Table

_ESCAPED = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
    | {special: f"\\{special}" for special in "&%$#_{}"}
)


def latex_table(table: Table, caption: str) -> str:
    """Return a table with its caption; the best cells are bold."""
    numbers = len(table.head) - table.numbers_from
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * table.numbers_from}{'r' * numbers}}}",
        r"\toprule",
        _row([latex_text(cell) for cell in table.head]),
        r"\midrule",
    ]
    for row, texts in enumerate(table.rows):
        cells = []
        for column, text in enumerate(texts):
            cell = latex_text(text)
            if (row, column) in table.best:
                cell = rf"\textbf{{{cell}}}"
            cells.append(cell)
        lines.append(_row(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def latex_text(text: str) -> str:
    """Return a text in one line that LaTeX prints as it is."""
    escaped = " ".join(text.split()).translate(_ESCAPED)
    # a minus, not a hyphen, before a number
    return re.sub(r"(?<![^\s\[])-(?=\d)", "$-$", escaped)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
