"""Training rows that fit: what is longer than the student may read is left out, and said."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cotpipe.errors import UserError
from cotpipe.training.job import Rows
from cotpipe.training.progress import write_line


def keep_within(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[dict[str, Any]]:
    """The rows whose prompt and completion (if they have one) take at most `max_tokens` tokens together.

    Says on standard output how many were kept and dropped. Raises `UserError` when none is left.
    """
    kept = [row for row in rows if _num_tokens(row, tokenizer) <= max_tokens]
    if not kept:
        raise UserError(
            f"none of the {len(rows)} training rows fits into {max_tokens} tokens; "
            "raise max_length (stage1) or max_prompt_length (stage2, stage3) in the recipe"
        )
    write_line(Rows(rows_kept=len(kept), rows_dropped=len(rows) - len(kept)))
    return kept


def sort_within_batches(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> list[dict[str, Any]]:
    """The same rows in the same batches, each batch sorted by length, so that its micro-batches need little padding."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [row for batch in batches for row in sorted(batch, key=lambda row: _num_tokens(row, tokenizer))]


def _num_tokens(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    messages = [*row["prompt"], *row.get("completion", [])]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt="completion" not in row)
    return len(tokenizer.encode(text, add_special_tokens=False))
