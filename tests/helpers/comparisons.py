"""A made-up comparison, for what is shown of one."""

import numpy as np
import pandas as pd

from cotpipe.report.arms import contrasts, score_arm
from cotpipe.report.compared import CheckpointScore, Compared, Spent, Unfinished

LEVELS = {"full": (0.8, 50), "plain": (0.5, 60), "alike": (0.79, 50)}


def answers(level: float, tokens: int, seed: int, num_seeds: int = 4) -> pd.DataFrame:
    """Answers to a hundred problems of each seed's own."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "seed": np.repeat(np.arange(num_seeds), 100),
            "problem_id": [f"s{s}p{p}" for s in range(num_seeds) for p in range(100)],
            "question": [f"question {p} of seed {s}" for s in range(num_seeds) for p in range(100)],
            "correct": rng.random(num_seeds * 100) < level,
            "num_tokens": rng.poisson(tokens, num_seeds * 100),
        }
    )


def made_up(baseline: str = "full", why: str = "failed (20261126-1: out of memory)") -> Compared:
    """Three arms over four seeds, of which one run has failed and two are missing."""
    rows = {arm: answers(*level, seed) for seed, (arm, level) in enumerate(LEVELS.items())}
    scores = {arm: score_arm(arm, frame) for arm, frame in rows.items()}
    return Compared(
        "made-up",
        baseline,
        scores,
        [CheckpointScore(arm, "stage1", score) for arm, score in scores.items()],
        {arm: Spent(1_234_567, 89_000, 754.0) for arm in rows},
        contrasts(baseline, rows),
        [Unfinished("plain", 7, why), Unfinished("alike", 8, ""), Unfinished("alike", 9, "")],
    )
