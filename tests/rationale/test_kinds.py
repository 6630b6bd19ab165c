"""Answers that are no numbers: what is right, what is wrong, and what is no gold answer."""

import contextlib
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cotpipe.rationale.answers import CHOICE, EXACT, MATH, AnswerKind
from cotpipe.rationale.answers.equivalence import Equivalence
from cotpipe.rationale.format import format_rationale, until_answer

QUESTION = "Which colour has the sky?\nA) red\nB) dark blue\nC) vitamin C\nD) 12\nE) a cat"


def right(kind: AnswerKind, said: str, gold: str, question: str = "") -> bool:
    """Whether a completion that ends with an answer line is right, by a gold answer that is read."""
    read = kind.read_gold(gold, question)
    assert read is not None
    return kind.grade(f"Step 1: So.\nAnswer: {said}", read, question).right


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("0.5", r"\frac{1}{2}"),
        ("1/2", "0.5"),
        (r"\dfrac12", "1/2"),
        ("1 1/2", r"\frac{3}{2}"),
        ("1½", "1.5"),
        ("٣", "3"),
        ("７２", "72"),
        ("1,250", "1250"),
        ("$1,250.00", r"\$1250"),
        ("50%", r"50\%"),
        ("50%", "0.5"),
        ("50%", "50"),
        ("5 + 3", "8"),
        ("2^(1/2)", r"\sqrt{2}"),
        ("5 cm", "5"),
        (r"5\text{ cm}", "5"),
        ("12 square units", "12"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt3}{2}"),
        (r"$\boxed{ x^2 + 1 }$.", "x^2+1"),
        ("(x + 1)^2", "x^2 + 2x + 1"),
        ("2√2", r"\sqrt{8}"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("x**2", "x²"),
        ("2*pi*r", r"2\pi r"),
        ("sin(x)", r"\sin x"),
        ("(-oo, 3]", r"(-\infty, 3]"),
        ("(−∞,3]∪[5,∞)", r"(-\infty,3] \cup [5,\infty)"),
        ("{3, 1, 2}", r"\{1,2,3\}"),
        ("2, 1", "1, 2"),
        ("x = 5", "5"),
        ("5", "x=5"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"0.1\overline{6}", "1/6"),
        ("2^-3", "0.125"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("**7**", "7"),
        (r"\(7\)", "7"),
        ("1e3", "1000"),
    ],
)
def test_the_same_value_in_another_notation_is_right(said, gold):
    assert right(MATH, said, gold)


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("(0, 1]", "(0, 1)"),
        ("[0, 1]", "(0, 1)"),
        ("(1, 0)", "(0, 1)"),
        ("{1, 2}", r"\{1, 2, 3\}"),
        ("(2, 1)", "(1, 2)"),
        ("0.33", "1/3"),
        ("x^2 + 1", "x^2 - 1"),
        ("y + 1", "x + 1"),
        ("1, 234", "1234"),
        ("1.000.000", "0"),
        ("9**9", "9"),
        ("5 $ 6", "5"),
        ("5 + ", "5"),
        ("1/0", "1"),
        (r"\frac{1", "1"),
        ("seven", "7"),
        ("5 or 6", "5"),
        ("", "5"),
        ("7" * 5_000, "7"),
        ("\x00", "7"),
        (r"\frac{1}{" * 60 + "1" + "}" * 60, "1"),
        ("{" * 100, "1"),
        ("1<x<2", "(1, 2)"),
    ],
    ids=lambda text: text[:12],
)
def test_another_value_and_no_expression_are_wrong(said, gold):
    assert not right(MATH, said, gold)


@pytest.mark.parametrize(
    "said",
    [
        "__import__('os').mkdir('made')",
        r"\text{__import__('os').mkdir('made')}",
        r"\operatorname{__import__('os').mkdir('made')}",
        "x_{__import__('os').mkdir('made')}",
        r"\frac{open('made','w')}{1}",
        "(lambda:open('made','w'))()",
        "f(open('made','w'))",
    ],
)
def test_nothing_that_a_model_wrote_is_run(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in (MATH, CHOICE, EXACT):
        kind.grade(f"Answer: {said}", "1", said)
        kind.read_gold(said, said)
    algebra = Equivalence()  # in this process and folder, whatever the kind lets through
    with contextlib.suppress(Exception):
        assert not algebra.same(said, "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "gold", ["even", r"\text{even}", "", "1/0", "))", "x^", "Evelyn and Carla", "1.2.3", "7" * 400]
)
def test_what_is_no_expression_is_no_gold_answer(gold):
    assert MATH.read_gold(gold, "") is None


def test_the_boxed_answer_of_a_solution_is_its_gold_answer():
    solution = r"We get $x^2 = 2$, so $x = \boxed{\dfrac{\sqrt{8}}{2}}$ as $x > 0$."
    assert MATH.read_gold(solution, "") == r"\frac{\sqrt{8}}{2}"


@pytest.mark.parametrize("bomb", ["9^{9^{9^{9}}}", "7^{7^{7^{7^{7}}}} + x"])
def test_an_expression_that_would_never_be_evaluated_is_wrong_with_a_reason(bomb):
    graded = MATH.grade(f"Answer: {bomb}", "3")
    assert (graded.right, graded.answer is not None) == (False, True)
    assert graded.unchecked == "the kind of answers 'math' took longer than 5 s of CPU time"
    before = time.process_time()
    assert MATH.grade(f"Answer: {bomb}", "3") == graded
    assert time.process_time() - before < 1  # what has hung once is not tried again
    assert right(MATH, "(x+1)^2", "x^2+2x+1")  # and another process goes on


def test_an_expression_that_takes_long_on_some_machines_is_wrong_on_all():
    assert not MATH.grade("Answer: " + "x^" * 100 + "2", "3").right


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("b)", "B"),
        ("[B]", "(B)"),
        (r"\boxed{\text{B}}", "B"),
        (r"\textbf{(B)}", "B"),
        ("**B**", "B"),
        ("B) dark blue", "B"),
        ("B: dark blue", "B"),
        ("B (dark blue)", "B"),
        ("B because A is wrong", "B"),
        ("(b), since the sky is no vitamin", "B"),
        ("The answer is B because of C", "B"),
        ("dark  Blue.", "B"),
        ("The correct answer is B", "B"),
        ("option B", "B"),
        ("B", "dark blue"),
        ("C) vitamin C", "C"),
        ("12", "D"),
        ("a cat", "E"),
        ("a", "A"),
    ],
)
def test_an_option_is_named_by_letter_or_text(said, gold):
    assert right(CHOICE, said, gold, QUESTION)


@pytest.mark.parametrize(
    "said",
    [
        "A", "A or B", "A, B", "AB", "A/B", "(A) (B)", "B and C", "B) red", "B) not this, but C", "blue",
        "F", "", "9**9**9**9", "B" * 500, "\x00", "the sky", "a dark blue", "Banana", "13",
        "A or B because it is", "because B", "A because it is",
    ],
)  # fmt: skip
def test_another_option_two_options_and_none_are_wrong(said):
    assert not right(CHOICE, said, "B", QUESTION)


@pytest.mark.parametrize("gold", ["F", "green", "", "A or B", "2"])
def test_what_names_no_option_is_no_gold_answer(gold):
    assert CHOICE.read_gold(gold, QUESTION) is None


@pytest.mark.parametrize(
    "question",
    [
        "Which? (A) one (B) two (C) three",
        "Which? A. one B. two C. three",
        "Which?\n(A) one\n(B) two\n(C) three\n\nThink first.",
        "Which? [A)one, B)two, C)three",
        r"Which? $\textbf{(A)}\ one \textbf{(B)}\ two \textbf{(C)}\ three$",
        "A. Smith asks: which?\nA: one\nB: two\nC: three",
    ],
)
def test_options_are_found_however_they_are_marked(question):
    assert right(CHOICE, "two", "B", question)
    assert CHOICE.read_gold("D", question) is None


def test_options_that_name_others_are_read_line_by_line():
    both = "Which?\n(A) red\n(B) blue\n(C) green\n(D) Both (A) and (B)"
    assert right(CHOICE, "C", "C", both)
    assert right(CHOICE, "(D) Both (A) and (B)", "D", both)
    assert right(CHOICE, "Both (A) and (B)", "D", both)
    infected = "What does it?\nA. kills mice\nB. eats\nC. sleeps\nD. infects E. coli"
    assert right(CHOICE, "infects E. coli", "D", infected)
    assert CHOICE.read_gold("E", infected) is None


def test_without_options_in_the_question_the_letter_counts():
    assert right(CHOICE, "(C).", "C", "Which one?")
    assert CHOICE.read_gold("dark blue", "Which one?") is None


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("paris", "Paris"),
        ("  New   York. ", "new york"),
        ("ﬁve", "five"),
        ("Ｐａｒｉｓ", "Paris"),
        ("STRASSE", "Straße"),
        ("e\u0301te\u0301", "été"),
        ("**Paris**", "Paris"),
        ("Pa\u200bris", "Paris"),
        ("U.S.", "U.S."),
        ("№ 5", "No 5"),
    ],
)
def test_the_same_text_is_right_whatever_its_case_and_form(said, gold):
    assert right(EXACT, said, gold)


@pytest.mark.parametrize(
    "said", ["", "Paris, France", "Pari", "the Paris", "Lyon", "Paris" * 100, "\x00", "Paris\x00s"]
)
def test_another_text_is_wrong(said):
    assert not right(EXACT, said, "Paris")


@pytest.mark.parametrize("kind", [MATH, CHOICE, EXACT])
@pytest.mark.parametrize(
    "text",
    [
        "7" * 5_000_000, "Answer: " + "7" * 5_000_000, "Answer: " * 500_000, "(" * 1_000_000,
        "Answer: " + "(A) " * 1_000_000, r"\boxed{" * 500_000, "Answer: " + "\\text{" * 500_000,
        "Answer: A" + " " * 1_000_000 + "B", "\n" * 1_000_000, "#### " + "\x00" * 1_000_000,
    ],
    ids=lambda text: text[:12] if isinstance(text, str) else "",
)  # fmt: skip
def test_huge_texts_take_no_time(kind, text):
    started = time.process_time()
    graded = kind.grade(text, "B", text)
    assert time.process_time() - started < 3
    assert not graded.unchecked


EXPRESSIONS = st.recursive(
    st.one_of(st.integers(-99, 99).map(str), st.sampled_from(["x", "y", r"\pi", r"\sqrt{2}"])),
    lambda inner: st.builds(
        str.format,
        st.sampled_from(["({}+{})", "({}-{})", r"\frac{{{}}}{{1+({})^{{2}}}}", "({})({})"]),
        inner,
        inner,
    ),
    max_leaves=3,
)
SLOWLY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOWLY
@given(EXPRESSIONS, EXPRESSIONS)
def test_expressions_are_right_for_themselves_and_symmetric(one, other):
    read = MATH.read_gold(one, "")
    assert read is not None
    assert MATH.read_gold(read, "") == read
    assert right(MATH, one, one)
    assert right(MATH, f" $ {one} $ . ", one)
    assert MATH.match(one, other, "") == MATH.match(other, one, "")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_a_text_that_can_be_a_gold_answer_is_right_for_itself(text):
    gold = EXACT.read_gold(text, "")
    if gold is None:
        return
    assert EXACT.grade(format_rationale(["So."], gold), gold).right
    assert EXACT.grade(f"Answer:  {gold.upper()} ", gold.upper()).right


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_texts_are_compared_symmetrically(one, other):
    assert EXACT.match(one, other, "") == EXACT.match(other, one, "")
    assert EXACT.match(one, f" {one}\t", "")


@settings(deadline=None)
@given(
    st.lists(
        st.from_regex(r"[a-z]{3,9}( [a-z]{3,9})?", fullmatch=True),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    st.data(),
)
def test_of_any_options_the_letter_and_the_text_are_the_same_answer(texts, data):
    question = "Which?\n" + "\n".join(
        f"{letter}) {text}" for letter, text in zip("ABCDE", texts, strict=False)
    )
    place = data.draw(st.integers(0, len(texts) - 1))
    letter = "ABCDE"[place]
    assert CHOICE.read_gold(texts[place], question) == CHOICE.read_gold(letter, question) == letter
    for said in (letter, f"({letter})", f"{letter}) {texts[place]}", texts[place].upper()):
        assert right(CHOICE, said, letter, question)
        assert not right(CHOICE, said, "ABCDE"[place - 1 if place else 1], question)


@settings(deadline=None)
@given(st.text())
def test_any_text_has_a_verdict(text):
    for kind in (CHOICE, EXACT):
        kind.grade(text, "B", text)
    answer = MATH.answer_in(text)
    assert answer is None or MATH.match(answer, answer, "")


@pytest.mark.parametrize(("kind", "answer"), [(MATH, "x+1"), (CHOICE, "B"), (EXACT, "Paris")])
def test_what_follows_the_answer_line_is_cut_off(kind, answer):
    text = f"Step 1: So.\n**Answer:** {answer}"
    assert until_answer(f"{text}\n\nQuestion: and now?\nAnswer: no", kind) == text
    assert until_answer(f"Answer:\n{answer}", kind) == f"Answer:\n{answer}"
