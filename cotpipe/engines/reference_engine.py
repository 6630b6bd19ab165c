"""The `reference` engine: a teacher that replays the rationales which the data set itself carries."""

from collections.abc import Iterable, Sequence

from cotpipe.engines.base import Generated, Report, Request, Sampling
from cotpipe.lengths import count_words
from cotpipe.rows import Problem


class ReferenceEngine:
    """Answers a problem with its own rationales, as many as it has and were asked for; lengths are in words."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._rationales = {problem.problem_id: problem.rationales for problem in problems}

    def generate(self, requests: Sequence[Request], sampling: Sampling, report: Report) -> list[list[Generated]]:
        """See `Engine.generate`; a problem without rationales has no samples."""
        answers = [self._rationales[request.problem_id][: sampling.num_samples] for request in requests]
        report(len(requests), len(requests))
        return [[Generated(text, count_words(text), truncated=False) for text in texts] for texts in answers]
