"""A user's verifier that hangs, raises, ends its process or returns nonsense."""

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cotpipe.data.rows import Reject
from cotpipe.errors import UserError
from cotpipe.rationale.answers import answer_kind
from cotpipe.rationale.lengths import count_words
from cotpipe.rationale.rewards import Target, reward_named
from cotpipe.recipe.model import Recipe
from tests.helpers.extensions import SOURCE, rows, run_until

HANGS = "re.fullmatch('(a|aa)+b', 'a' * 100) is None"  # in C, where no signal handler runs


def own(match: str, extract: str = "text.split()[-1]"):
    """A kind whose functions are these expressions."""
    Path("own.py").write_text(
        "import os, re, sys, time\n"
        "from cotpipe.rationale.answers import AnswerKind\n"
        "def it():\n"
        f"    return AnswerKind(form='word', match=lambda answer, gold, question: {match},\n"
        f"                      extract=lambda text: {extract})\n"
    )
    return answer_kind("own.py:it")


def test_a_verifier_gets_answer_gold_and_question():
    kind = own("(answer, gold, question) == ('72', '7', 'Which?')")
    assert kind.grade("Answer: 72", "7", "Which?").right
    assert not kind.grade("Answer: 72", "7", "What?").right


def test_one_that_hangs_is_ended_and_the_next_answer_is_checked(caplog):
    kind = own(f"{HANGS} if answer == 'hang' else answer == gold")
    for _ in range(2):
        graded = kind.grade("Answer: hang", "hang")
        assert (graded.right, graded.answer) == (False, "hang")
        assert graded.unchecked == "own.py:it took longer than 5 s of CPU time"
    assert kind.grade("Answer: yes", "yes").right
    assert [record.getMessage() for record in caplog.records] == [
        "own.py:it took longer than 5 s of CPU time; such an answer counts as wrong (this is said once)"
    ]


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        ("1 / 0", "own.py:it raised ZeroDivisionError"),
        ("sys.exit(3)", "own.py:it raised SystemExit"),
        ("os._exit(3)", "own.py:it ended its process (exit status 3)"),
        ("os.kill(os.getpid(), 9)", "own.py:it ended its process (exit status -9)"),
        ("(lambda f: f(f))(lambda f: f(f))", "own.py:it raised RecursionError"),
    ],
)
def test_one_that_raises_or_ends_its_process_is_wrong_with_the_reason(match, reason):
    graded = own(match).grade("Answer: yes", "yes")
    assert (graded.right, graded.unchecked) == (False, reason)
    assert own("answer == gold").grade("Answer: yes", "yes").right


@pytest.mark.parametrize(
    ("match", "extract", "message"),
    [
        ("'yes'", "'yes'", "own.py:it: match returned str, not bool; fix the function"),
        ("None", "'yes'", "own.py:it: match returned NoneType, not bool"),
        ("1", "'yes'", "own.py:it: match returned int, not bool"),
        ("True", "['yes']", "own.py:it: extract returned list, not str"),
    ],
)
def test_one_that_returns_another_type_is_an_error(match, extract, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        own(match, extract).grade("Answer: yes", "yes")


def test_what_it_prints_does_not_come_between():
    assert own("print(answer) or sys.stdout.flush() or True").grade("Answer: yes", "no").right


def test_threads_get_their_own_verdicts():
    kind, wrong = own("answer == gold"), []

    def ask(name: str) -> None:
        for number in range(50):
            gold = f"{name}{number % 2}"
            if kind.grade(f"Answer: {name}0", gold).right != (number % 2 == 0):
                wrong.append(gold)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_edited_verifier_counts_at_once():
    assert own("answer == gold").grade("Answer: yes", "yes").right
    assert not own("answer == gold[:0] + 'no'").grade("Answer: yes", "yes").right


def test_its_process_ends_with_the_one_that_asks():
    own("True")
    code = (
        "import os, psutil; from cotpipe.rationale.answers import answer_kind\n"
        "answer_kind('own.py:it').grade('yes', 'yes')\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(timeout=60)


def test_a_reward_takes_what_cannot_be_checked_as_wrong():
    target = Target("yes", 3, 20, own("1 / 0"))
    parts = reward_named("correct-first")("Step 1: So.\nAnswer: yes", target, count_words)
    assert (parts.reward, parts.correct, parts.valid_format) == (0, False, True)


def until(kind: str, tmp_path: Path, source: dict):
    """The rejects of a step, of a recipe with the kind of answers above."""
    recipe = Recipe.model_validate(
        {"problems": {"source": source, "answers": {"kind": "own.py:it"}}}
    )
    store, outcome = run_until(kind, recipe, tmp_path)
    return outcome.record.counts, rows(store, outcome, "rejects", Reject)


def test_rationales_that_it_cannot_check_are_rejects_with_the_reason(tmp_path):
    own("1 / 0 if int(gold) % 2 else True", "re.findall('[0-9]+', text)[-1]")
    counts, rejects = until("rationales", tmp_path, SOURCE["source"])
    assert {row.reason for row in rejects} == {"own.py:it raised ZeroDivisionError"}
    assert 0 < counts["kept"] < 40


def test_gold_answers_that_it_cannot_read_are_rejects_with_the_reason(tmp_path):
    own("True", "1 / 0 if '7' in text else text")
    lines = [json.dumps({"question": f"{number}?", "answer": str(number)}) for number in range(17)]
    Path("questions.jsonl").write_text("\n".join(lines))
    _, (reject,) = until("problems", tmp_path, {"kind": "file", "path": "questions.jsonl"})
    assert reject.reason == "gold answer: own.py:it raised ZeroDivisionError"
    assert reject.detail == "questions.jsonl, line 8: '7'"
