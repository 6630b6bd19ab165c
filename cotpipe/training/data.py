"""Filtering training rows by length, and sorting them within batches."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cotpipe.errors import UserError
from cotpipe.training.messages import Rows
from cotpipe.training.progress import write_line


def keep_within(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[dict[str, Any]]:
    """The rows whose prompt plus completion (if any) has at most `max_tokens` tokens.

    Reports the numbers of kept and dropped rows on standard output. Raises `UserError` if no row
    is left.
    """
    kept = [row for row in rows if _num_tokens(row, tokenizer) <= max_tokens]
    if not kept:
        raise UserError(
            f"none of the {len(rows)} training rows fits in {max_tokens} tokens; "
            "raise the trainer's max_length (sft) or max_prompt_length (grpo) in the recipe"
        )
    write_line(Rows(rows_kept=len(kept), rows_dropped=len(rows) - len(kept)))
    return kept


def sort_within_batches(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> list[dict[str, Any]]:
    """Sort each batch by length to reduce padding; rows stay in their batch."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [
        row
        for batch in batches
        for row in sorted(batch, key=lambda row: _num_tokens(row, tokenizer))
    ]


def _num_tokens(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    messages = [*row["prompt"], *row.get("completion", [])]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt="completion" not in row
    )
    return len(tokenizer.encode(text, add_special_tokens=False))
