"""The question of a prompt is found again, whatever help stands below it."""

from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.prompts import (
    completion_prompt,
    hinted_prompt,
    question_of,
    question_prompt,
    reconstruction_prompt,
    rewriting_prompt,
)

texts = st.text(max_size=60)
steps = st.lists(texts, min_size=1, max_size=4)


@given(texts, steps, st.sampled_from(["", "Solve step by step."]))
def test_every_prompt_gives_its_question(question, steps, instruction):
    for prompt in (
        question_prompt(question, instruction),
        reconstruction_prompt(question, [None, *steps], instruction),
        completion_prompt(question, [*steps, None], instruction),
        hinted_prompt(question, steps, 1, instruction),
        rewriting_prompt(question, steps, "B", instruction),
    ):
        assert question_of(prompt) == question
