"""Sixteen lessons for the tests of this folder."""

from cotpipe.data.rows import Lesson, to_table

LESSONS = [
    Lesson(
        problem_id=f"id{number}", split="stage1", position=0.0, question=f"{number} and {number}?",
        answer=str(2 * number), teacher_steps=[f"{number} + 0", "twice"], teacher_words=9, uses=[[], []],
        distance=[1, 0], critical=[1],
    )
    for number in range(16)
]  # fmt: skip
TABLE = to_table(Lesson, LESSONS)
