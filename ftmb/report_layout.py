"""What a table of the report is, and how a number is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """A table ready to print: the first `words` columns hold text, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: int = 1
    wide: bool = field(default=False)
    title: str = ""


def number(value: Any, form: str = ",.0f", scale: float = 1.0) -> str:
    """A number in a fixed form, or a dash where there is none."""
    if value is None or pd.isna(value):
        return MISSING
    return f"{float(value) * scale:{form}}"


def summed(values: pd.Series) -> str:
    """The sum of a column of counts; a dash where none of them was measured."""
    return number(pd.to_numeric(values).sum(min_count=1))
