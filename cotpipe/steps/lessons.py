"""The step that assigns each problem its split and the rationale to teach."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cotpipe.data.problems.stored import PROBLEMS
from cotpipe.data.rows import Lesson, Reject, Split, read_rows
from cotpipe.data.splits import near_duplicates, position_of, split_at
from cotpipe.randomness import named_random
from cotpipe.steps.rejects import write_with_rejects
from cotpipe.steps.spilling import bounded_database, rows_of
from cotpipe.steps.step import Step, Work

_RANKED_BY = {"shortest": "num_words, sample", "longest": "-num_words, sample", "first": "sample"}


def plan_lessons(work: Work) -> dict[str, int]:
    """Write `lessons.parquet`: every problem with its split and the rationale to teach.

    Batches are ordered from newest to oldest, and problems within a batch by the hash of their id.
    Training problems that nearly duplicate a held-out question go to `rejects.parquet`.
    """
    section, recipe = work.recipe.problems, work.recipe
    files = {
        "problems": work.input("problems", PROBLEMS),
        "rationales": work.input("rationales", "rationales.parquet"),
    }
    splits: Counter[str] = Counter()
    with bounded_database(work.output) as database:
        plan = _Plan(database, files)
        plan.place(section.splits.by_name())
        plan.choose(recipe.teacher.choice, recipe.seed)
        repeats = near_duplicates(
            plan.questions(held_out=False),
            (question for _, question in plan.questions(held_out=True)),
            section.near_duplicate,
        )

        def rows() -> Iterator[Lesson | Reject]:
            for lesson in plan.lessons():
                if repeated := repeats.get(lesson.problem_id):
                    yield Reject(lesson.problem_id, "nearly a held-out question", repeated)
                else:
                    splits[lesson.split] += 1
                    yield lesson

        found = write_with_rejects(work.output, Lesson, "lessons", rows())
    return found.counts | {f"{split} problems": count for split, count in sorted(splits.items())}


class _Plan:
    """What goes where, as tables of row numbers; the rows themselves stay in their files."""

    def __init__(self, database: duckdb.DuckDBPyConnection, files: dict[str, Path]) -> None:
        self._database = database
        self._files = {name: str(path) for name, path in files.items()}

    def place(self, shares: dict[Split, float]) -> None:
        """Create `places`: of every problem its row, its split, and its place in the order."""
        table = pq.read_table(
            self._files["problems"], columns=["problem_id", "split", "batch"]
        ).append_column("number", pa.array(range(self._count("problems")), pa.int64()))
        positions = [position_of(problem_id) for problem_id in table["problem_id"].to_pylist()]
        splits = [
            own or split_at(position, shares)
            for own, position in zip(table["split"].to_pylist(), positions, strict=True)
        ]
        table = table.set_column(1, "split", pa.array(splits, pa.string()))
        self._create(
            "places",
            """
            select number, problem_id, split, position,
                   row_number() over (order by -batch, position, problem_id, number) as place
            from found
            """,
            found=table.append_column("position", pa.array(positions, pa.float64())),
        )

    def choose(self, choice: str, seed: int) -> None:
        """Create `chosen`: the row and place of one verified rationale per problem.

        Args:
            choice: The policy; ties go to the earlier sample.
            seed: The seed of the recipe, for the policy `random`.
        """
        counted = "select problem_id, count(*) as count from read_parquet($rationales) group by problem_id"
        picks: dict[str, list[Any]] = {"problem_id": [], "rank": []}
        if choice == "random":
            for row in self._rows(counted, "rationales"):
                rng = named_random(seed, "choice", row["problem_id"])
                picks["problem_id"].append(row["problem_id"])
                picks["rank"].append(rng.choice(range(row["count"])) + 1)
        # `order` is one of the constants above, never user input.
        order = ", ".join(filter(None, (_RANKED_BY.get(choice), "file_row_number")))
        self._create(
            "chosen",
            f"""
            with ranked as (
                select problem_id, file_row_number as number,
                       row_number() over (partition by problem_id order by {order}) as rank
                from read_parquet($rationales, file_row_number = true)
            )
            select ranked.number, place
            from ranked join places using (problem_id) left join picks using (problem_id)
            where ranked.rank = coalesce(picks.rank, 1)
            """,  # noqa: S608
            "rationales",
            picks=pa.table(picks, pa.schema([("problem_id", pa.string()), ("rank", pa.int64())])),
        )

    def questions(self, held_out: bool) -> Iterator[tuple[str, str]]:
        """Id and question of the training or the held-out problems, in order."""
        query = """
            select places.problem_id, question
            from read_parquet($problems, file_row_number = true) as problems
            join places on number = file_row_number
            where (places.split in ('validation', 'test')) = $held_out
            order by place
        """
        for row in self._rows(query, "problems", held_out=held_out):
            yield row["problem_id"], row["question"]

    def lessons(self) -> Iterator[Lesson]:
        """All lessons, in order: a merge of the sorted problems and the sorted rationales."""
        taught = self._rows(
            """
            select place, steps, num_words, uses, distance, critical
            from read_parquet($rationales, file_row_number = true)
            join chosen on number = file_row_number
            order by place
            """,
            "rationales",
        )
        problems = self._rows(
            """
            select place, places.problem_id, places.split, position, question, answer
            from read_parquet($problems, file_row_number = true)
            join places on number = file_row_number
            order by place
            """,
            "problems",
        )
        rationale = next(taught, None)
        for problem in problems:
            if rationale and rationale["place"] == problem["place"]:
                yield _lesson(problem, rationale)
                rationale = next(taught, None)
            else:
                yield _lesson(problem, _NO_RATIONALE)
        assert rationale is None, "every chosen rationale belongs to a problem"

    def _count(self, name: str) -> int:
        return int(pq.read_metadata(self._files[name]).num_rows)

    def _rows(self, query: str, file: str, **values: Any) -> Iterator[dict[str, Any]]:
        return rows_of(self._database, query, {file: self._files[file], **values})

    def _create(self, name: str, query: str, *files: str, **tables: pa.Table) -> None:
        for table, rows in tables.items():
            self._database.register(table, rows)
        parameters = {file: self._files[file] for file in files}
        self._database.execute(f"create table {name} as {query}", parameters)
        for table in tables:
            self._database.unregister(table)


_NO_RATIONALE = {"steps": [], "num_words": 0, "uses": [], "distance": [], "critical": []}


def _lesson(problem: dict[str, Any], rationale: dict[str, Any]) -> Lesson:
    return Lesson(
        problem_id=problem["problem_id"],
        split=problem["split"],
        position=problem["position"],
        question=problem["question"],
        answer=problem["answer"],
        teacher_steps=rationale["steps"],
        teacher_words=rationale["num_words"],
        uses=rationale["uses"],
        distance=rationale["distance"],
        critical=rationale["critical"],
    )


def read_lessons(path: Path, split: str) -> Iterator[Lesson]:
    """The lessons of one split, in order."""
    return (lesson for lesson in read_rows(path, Lesson) if lesson.split == split)


STEP = Step(
    "lessons",
    2,
    ("problems", "rationales"),
    lambda recipe: recipe.fields(
        "seed", "problems.splits", "problems.near_duplicate", "teacher.choice"
    ),
    plan_lessons,
)
