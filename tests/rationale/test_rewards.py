import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotpipe.rationale.rewards import Target, recovery_reward, rewrite_reward, verdict


def target(teacher_steps: int = 1, teacher_length: int = 100) -> Target:
    return Target("72", teacher_steps, teacher_length)


def words(count: int, steps: int = 1) -> str:
    """A right, well-formed completion of exactly `count` words."""
    lines = [f"Step {number}: x" for number in range(1, steps + 1)]
    missing = count - 3 * steps - 2
    return "\n".join([*lines[:-1], lines[-1] + " x" * missing, "Answer: 72"])


@pytest.mark.parametrize(
    ("completion", "teacher_steps", "reward"),
    [
        ("Step 1: a\nAnswer: 71", 3, -2.0),
        ("", 3, -2.0),
        ("72", 3, -1.0),
        ("Answer: 72", 3, -1.0),
        ("Step 1: a so 72", 3, -1.0),
        # As published, labels count wherever they stand.
        ("So, Step 1: 3 x 24 = 72. Answer: 72", 1, 1 + 0.001 * (28 - 10)),
        ("Answer: 72\nStep 1: 3 x 24", 1, 1 + 0.001 * (28 - 7)),
        ("**Step 1:** a **Step 2:** b Answer: 72", 2, 1 + 0.001 * (56 - 8)),
        # b = 35: at 28 words the bonus begins, at 35 the penalty grows; one step of one teacher step saves nothing.
        (words(28), 1, 1.0),
        (words(35), 1, 1 - 0.002 * 7),
        (words(36), 1, 1 - 0.01),
        (words(85), 1, 1 - 0.5),
        (words(300), 1, 1 - 1.0),
        (words(8), 1, 1 + 0.02),
        # n = 4, b = 140, 0.8 b = 112.
        (words(112, steps=4), 4, 1.0),
        (words(112, steps=2), 4, 1 + 0.6),
        (words(112, steps=1), 4, 1 + 0.9),
        (words(112, steps=6), 4, 1.0),
        (words(12), 10, 1 + 0.9 + 0.2),
    ],
)
def test_recovery_as_published(completion, teacher_steps, reward):
    assert recovery_reward(completion, target(teacher_steps)).reward == pytest.approx(reward)


@pytest.mark.parametrize(
    ("num_words", "reward"),
    [
        (100, 1.0),
        (81, 1.0),
        (80, 1.0),
        (65, 1.25),
        (50, 1.5),
        (35, 1.65),
        (20, 1.8),
        (10, 1.8),
        (150, 0.75),
        (200, 0.5),
        (500, 0.5),
    ],
)
def test_rewrite_as_published(num_words, reward):
    assert rewrite_reward(words(num_words), target()).reward == pytest.approx(reward)


@pytest.mark.parametrize(
    ("completion", "reward"), [("Step 1: a\nAnswer: 7", -2.0), ("it is 72", -1.0)]
)
def test_rewrite_of_wrong_and_malformed(completion, reward):
    assert rewrite_reward(completion, target()).reward == reward


def test_our_own_verdict_asks_for_lines():
    assert verdict("So, Step 1: 3 x 24. Answer: 72", target()) == (-1.0, True, False)
    assert verdict("Step 1: 3 x 24\nAnswer: 72", target()) == (1.0, True, True)


def test_length_unit_is_an_argument():
    long = recovery_reward(words(28), target(), length=lambda text: 2 * len(text.split()))
    assert long.reward == pytest.approx(1 - 0.01 * 21)


@given(st.text(), st.integers(1, 20), st.integers(1, 400))
def test_hierarchy_holds_for_any_text(text, teacher_steps, teacher_words):
    for parts in (
        recovery_reward(text, target(teacher_steps, teacher_words)),
        rewrite_reward(text, target(teacher_steps, teacher_words)),
    ):
        assert parts.reward == pytest.approx(parts.base + parts.brevity_steps + parts.length)
        if not parts.correct:
            assert parts.reward == -2
        elif not parts.valid_format:
            assert parts.reward == -1
        else:
            assert parts.reward >= 0
