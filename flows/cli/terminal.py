"""The terminal: prints text as it is; markup, emoji codes and control characters in it do nothing."""

from typing import Any

from rich.console import Console
from rich.text import Text

from cotpipe.report.plain import visible


class Terminal(Console):
    """A console for text of others: problems, models, files, recipes.

    Every string that is printed, also in cells, titles and trees, passes `render_str`; what is to have
    a style is printed with `style`, or as a `Text` from `styled`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as the text that it is."""
        return super().render_str(visible(text), **options)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of parts, each with its style if it has one."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((visible(text), style) for text, style in pairs))
