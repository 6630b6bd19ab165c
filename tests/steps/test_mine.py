"""Which failures the mining holds for persistent."""

from cotpipe.data.rows import Answered, write_rows
from cotpipe.recipe.model import Mining, Recipe
from cotpipe.steps.mine import _persistent, step


def answered(*verdicts: tuple[str, bool]) -> list[Answered]:
    return [
        Answered(problem_id, number, "q", "1", "", None, correct, True, 1, False)
        for number, (problem_id, correct) in enumerate(verdicts)
    ]


def test_a_failure_is_persistent_where_the_earlier_minings_that_asked_it_agree(tmp_path):
    tables = {
        "now": answered(
            ("always", False), ("always", False), ("once", False), ("new", False), ("well", True)
        ),
        "before": answered(("always", False), ("once", True), ("gone", False)),
        "long ago": answered(("always", False), ("well", False)),
    }
    paths = []
    for name, rows in tables.items():
        paths.append(tmp_path / f"{name}.parquet")
        write_rows(paths[-1], Answered, rows)
    assert _persistent(paths[0], paths[1:], 0.0) == [("always", 2, 0), ("new", 1, 0)]
    assert _persistent(paths[0], [], 0.0) == [("always", 2, 0), ("new", 1, 0), ("once", 1, 0)]


def test_earlier_nights_decide_the_first_mining_alone():
    plain, night = Recipe(), Recipe(mining=Mining(history=("f" * 32,)))
    first, second = step("failures", "stage2"), step("failures-stage3", "stage3")
    assert first.fields(plain) != first.fields(night)
    assert second.fields(plain) == second.fields(night)
