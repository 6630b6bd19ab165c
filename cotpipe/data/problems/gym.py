"""Problems from the generators of the reasoning_gym package."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from typing_extensions import override

from cotpipe.data.problems.source import Reading, Source, sources
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.section import NumRows


@sources.register("reasoning_gym")
class GymSource(Source):
    """A `reasoning_gym` generator with rationales in its metadata, such as `gsm_symbolic`."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str = Field("gsm_symbolic", description="Name of the generator in reasoning_gym")
    num_problems: NumRows = Field(1000, description="Number of problems to generate")
    rationale_key: str = Field(
        "answer_cot", description="Key of the rationale in the generator's metadata"
    )

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The generator's problems, with the rationales from their metadata."""
        import reasoning_gym

        try:
            dataset = reasoning_gym.create_dataset(
                self.dataset, size=self.num_problems, seed=reading.seed
            )
        except ValueError as error:
            raise UserError(
                f"problems.source.dataset: reasoning_gym has no generator {self.dataset!r}"
            ) from error
        for number, entry in enumerate(dataset):
            problem_id = f"{self.dataset}-{number:06d}"
            stated = str(entry["answer"])
            answer = reading.gold(stated, entry["question"], problem_id)
            if isinstance(answer, Reject):
                yield answer
                continue
            rationale = entry["metadata"].get(self.rationale_key)
            rationales = [f"{rationale}\n#### {answer}"] if rationale else []
            yield Problem(problem_id, entry["question"], answer, rationales)
