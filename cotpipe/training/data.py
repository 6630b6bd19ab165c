"""Training rows: tokenizing them, leaving out those that are too long, sorting within batches."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from cotpipe.data.rows import Example
from cotpipe.errors import UserError
from cotpipe.rationale.turns import prompt_tokens, target_tokens
from cotpipe.training.messages import Rows
from cotpipe.training.progress import write_line


def sft_row(example: Example, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A row for TRL's SFTTrainer: tokens, and which of them the loss covers; the end token last.

    Raises `UserError` if the student's chat template does not end the target with its end token.
    """
    try:
        tokens, mask = target_tokens(tokenizer, example.prompt, example.target)
    except ValueError as error:
        raise UserError(
            f"problem {example.problem_id}: {error}, so the student would never stop; correct the "
            "student's chat template or eos_token"
        ) from error
    return {"input_ids": tokens, "completion_mask": mask, "length": len(tokens)}


def grpo_row(example: Example, index: int, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A row for TRL's GRPOTrainer: the prompt, and the `index` of its example."""
    length = len(prompt_tokens(tokenizer, example.prompt))
    return {"prompt": example.prompt, "row": index, "length": length}


def usable_rows(
    rows: Sequence[dict[str, Any]], max_tokens: int, per_step: int
) -> list[dict[str, Any]]:
    """The rows that fill whole optimizer steps and are not too long; reports what became of all.

    An incomplete last step is left out: several processes would fill it up with rows from the
    beginning, and one would not.

    Args:
        rows: Rows with their `length` in tokens.
        max_tokens: The longest length that is kept (tokens).
        per_step: Rows that one optimizer step takes.
    """
    fitting = [row for row in rows if row["length"] <= max_tokens]
    kept = fitting[: len(fitting) // per_step * per_step]
    write_line(
        Rows(
            rows_kept=len(kept),
            rows_dropped=len(rows) - len(fitting),
            rows_left_over=len(fitting) - len(kept),
            longest_row=max((row["length"] for row in rows), default=0),
        )
    )
    return kept


def sort_within_batches(rows: Sequence[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
    """Sort each batch by length to reduce padding; rows stay in their batch."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [row for batch in batches for row in sorted(batch, key=lambda row: row["length"])]
