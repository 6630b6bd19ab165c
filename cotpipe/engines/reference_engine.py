"""The `reference` engine: a teacher that replays the reference rationales of the data set."""

from collections.abc import Iterable, Sequence

from cotpipe.data.rows import Problem
from cotpipe.engines.base import Generated, Request, Sampling
from cotpipe.progress import Progress
from cotpipe.rationale.lengths import count_words


class ReferenceEngine:
    """Returns a problem's reference rationales, up to `num_samples`; token counts are in words."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._rationales = {problem.problem_id: problem.rationales for problem in problems}

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, progress: Progress
    ) -> list[list[Generated]]:
        """See `Engine.generate`; a problem without rationales has no samples."""
        answers = [
            self._rationales[request.problem_id][: sampling.num_samples] for request in requests
        ]
        progress(len(requests), len(requests))
        return [
            [Generated(text, count_words(text), truncated=False) for text in texts]
            for texts in answers
        ]
