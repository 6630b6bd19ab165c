"""Sixteen lessons for the tests of this folder."""

from collections.abc import Iterator, Sequence

from cotpipe.data.rows import Lesson


class Table(list[Lesson]):
    """Lessons in memory, read as the step of the examples reads them from a file."""

    def in_order(self, order: Sequence[int]) -> Iterator[Lesson]:
        return (self[position] for position in order)


LESSONS = [
    Lesson(
        problem_id=f"id{number}", split="stage1", position=0.0, question=f"{number} and {number}?",
        answer=str(2 * number), teacher_steps=[f"{number} + 0", "twice"], teacher_words=9, uses=[[], []],
        distance=[1, 0], critical=[1],
    )
    for number in range(16)
]  # fmt: skip
TABLE = Table(LESSONS)
