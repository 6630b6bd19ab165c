"""Which state of a stage is kept, when brevity is paid, and when training ends."""

import pytest

from cotpipe.recipe.trainers import Brevity, Validation
from cotpipe.training.messages import Validated
from cotpipe.training.validation import Course, within_one_error


def at(step: int, right: int, tokens: int, problems: int = 100) -> Validated:
    return Validated(
        step=step, correct=[n < right for n in range(problems)], num_tokens=[tokens] * problems
    )


def kept(*validated: Validated) -> int:
    course = Course(Validation())
    for one in validated:
        course.add(one)
    return course.validated[course.kept].step


@pytest.mark.parametrize(
    ("states", "step"),
    [
        ([at(0, 50, 60), at(10, 60, 60), at(20, 55, 60)], 10),  # the best, not the last
        ([at(0, 50, 60), at(10, 40, 60), at(20, 30, 60)], 0),  # only worse: the one it got
        ([at(0, 50, 60), at(10, 50, 60)], 0),  # nothing gained
        ([at(0, 50, 60), at(10, 50, 50)], 10),  # as good and shorter
        ([at(0, 50, 60), at(10, 49, 50)], 0),  # never less accurate than the start
        ([at(0, 50, 60), at(10, 60, 60), at(20, 59, 50)], 20),  # within one standard error, shorter
        ([at(0, 50, 60), at(10, 46, 30)], 0),  # shorter, and worse by more
        ([at(0, 50, 60), at(10, 49, 50), at(20, 60, 70)], 20),  # a new best takes both out
        ([at(0, 50, 60), at(10, 60, 70), at(20, 59, 55), at(30, 58, 40)], 20),  # no drifting down
        # Step 20 was passed over for step 10, which step 30 takes out of range: it is gone.
        ([at(0, 50, 80), at(10, 58, 50), at(20, 59, 60), at(30, 60, 70)], 30),
    ],
)
def test_the_state_that_is_kept(states, step):
    assert kept(*states) == step


@pytest.mark.parametrize(
    ("states", "step"),
    [
        (
            [at(0, 0, 60), at(10, 60, 60), at(20, 59, 40)],
            10,
        ),  # about as accurate and shorter: not asked
        ([at(0, 0, 60), at(10, 60, 60), at(20, 60, 40)], 10),  # the first of several
        ([at(0, 70, 60), at(10, 60, 60)], 0),
    ],
)
def test_fine_tuning_keeps_the_most_accurate_state(states, step):
    course = Course(Validation(), shortens=False)
    for one in states:
        course.add(one)
    assert course.validated[course.kept].step == step


def test_training_ends_once_nothing_gets_better():
    course = Course(Validation(patience=2))
    over = []
    for one in (at(0, 50, 60), at(10, 60, 60), at(20, 55, 60), at(30, 55, 60), at(40, 55, 60)):
        course.add(one)
        over.append(course.is_over)
    assert over == [False, False, False, True, True]


def test_training_goes_on_where_it_is_told_to():
    course = Course(Validation(patience=1, stops=False))
    for step in range(5):
        course.add(at(step, 50, 60))
    assert not course.is_over


def test_brevity_is_paid_only_once_accuracy_no_longer_rises():
    course = Course(Validation(patience=2), Brevity(min_accuracy=0.9))
    paid = []
    for one in (at(0, 50, 60), at(10, 60, 60), at(20, 60, 60), at(30, 60, 60)):
        course.add(one)
        paid.append(course.pays_brevity)
    assert paid == [False, False, False, True]
    assert not course.is_over  # brevity has a chance first
    course.add(at(40, 60, 50))
    course.add(at(50, 60, 55))
    assert not course.is_over
    course.add(at(60, 60, 55))
    assert course.is_over


def test_answers_that_shorten_by_themselves_do_not_put_brevity_off():
    course = Course(Validation(patience=2), Brevity(min_accuracy=0.9))
    paid = []
    for number in range(4):
        course.add(at(10 * number, 60, 60 - number))
        paid.append(course.pays_brevity)
    assert paid == [False, False, True, True]


def test_brevity_is_paid_at_once_from_the_accuracy_on():
    course = Course(Validation(), Brevity(min_accuracy=0.5))
    course.add(at(0, 50, 60))
    assert course.pays_brevity


def test_a_single_problem_decides_nothing():
    assert within_one_error([True], [False])
