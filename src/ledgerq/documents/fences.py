"""Code fences of Markdown, as CommonMark has them."""

from __future__ import annotations

from typing import Final

FENCE: Final = r"(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>[^\n]*)"
"""What may open or close one, for patterns with `re.MULTILINE`. A line with more backticks behind the first is code in a line."""


def closes(fence: str, mark: str, info: str) -> bool:
    """Whether a line of these marks, with `info` behind them, ends the code that `fence` began."""
    return mark[0] == fence[0] and len(mark) >= len(fence) and not info.strip()
