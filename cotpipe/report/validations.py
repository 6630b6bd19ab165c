"""What became of a stage's validations: which of its states is its checkpoint, and why."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from cotpipe.report.gate import too_few
from cotpipe.report.statistics import Change, change_of_mean, change_of_share

_MARGIN = 0.02
"""The loss of accuracy that a gate allows by default: fewer problems than it needs are told."""


@dataclass(frozen=True)
class Choice:
    """The state that a stage kept, compared with the checkpoint it started from."""

    stage: str
    kept_step: int  # optimizer steps; 0: the checkpoint it started from
    last_step: int
    problems: int
    first_accuracy: float  # in [0, 1], before training
    last_accuracy: float  # of the last state, kept or not
    accuracy: Change
    tokens: Change

    @property
    def why(self) -> str:
        """The reason, in words."""
        if self.kept_step == 0:
            return (
                "no state of the training was more accurate than the checkpoint it started from, nor "
                "about as accurate and shorter, so that checkpoint is handed on"
            )
        if self.kept_step < self.last_step:
            return "later states were no better"
        return "the last state was the best"

    @property
    def few(self) -> str:
        """Says that so few problems cannot show a small loss; empty if they can."""
        return too_few(self.problems, _MARGIN)


def read_choice(stage: str, file: Path) -> Choice | None:
    """The choice of a stage from its `validations.parquet`; None if it was not trained."""
    query = """
        select step, kept, list(correct order by problem_id), list(num_tokens order by problem_id)
        from read_parquet(?) group by step, kept order by step
    """
    with duckdb.connect() as connection:
        states = connection.execute(query, [str(file)]).fetchall()
    if not states:
        return None
    first, last = states[0], states[-1]
    chosen = next(state for state in states if state[1])
    return Choice(
        stage=stage,
        kept_step=chosen[0],
        last_step=last[0],
        problems=len(first[2]),
        first_accuracy=sum(first[2]) / len(first[2]),
        last_accuracy=sum(last[2]) / len(last[2]),
        accuracy=change_of_share(first[2], chosen[2]),
        tokens=change_of_mean(first[3], chosen[3]),
    )
