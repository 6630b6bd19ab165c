"""Problems from a data set of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from cotpipe.data.problems.columns import TableSource, require_columns
from cotpipe.data.problems.source import Reading, sources
from cotpipe.data.rows import Problem, Reject
from cotpipe.errors import UserError
from cotpipe.hub import require_on_hub


@sources.register("hub")
class HubSource(TableSource):
    """A data set of the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    dataset: str = Field("openai/gsm8k", description="Data set id on the hub")
    subset: str | None = Field("main", description="Configuration of the data set")
    revision: str | None = Field(None, description="Commit or tag to pin; default: the newest")
    train_split: str = Field("train", description="Split that the training problems come from")
    test_split: str | None = Field(
        "test", description="Split that becomes the test problems, if there is one"
    )
    added_later: ClassVar[frozenset[str]] = TableSource.added_later | {"id_column"}

    @override
    def read(self, reading: Reading) -> Iterator[Problem | Reject]:
        """The problems of the data set; its test split is held out."""
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError

        for split, held_out in ((self.train_split, None), (self.test_split, "test")):
            if split is None:
                continue
            try:
                table = load_dataset(self.dataset, self.subset, split=split, revision=self.revision)
            except (DatasetNotFoundError, ConnectionError, ValueError) as error:
                raise UserError(
                    f"problems.source.dataset: cannot load {self.dataset!r}, split {split!r}: "
                    f"{error}"
                ) from error
            require_columns(self.dataset, table.column_names, self.columns())
            rows = table.take(self.limit) if self.limit else table
            for number, row in enumerate(rows, start=1):
                where = f"{self.dataset} {split} row {number}"
                yield self.problem_of(row, held_out, where, reading)

    @override
    def local_paths(self) -> list[Path]:
        """The folder that has the data set's name: `datasets` prefers it to the hub."""
        path = Path(self.dataset)
        return [path] if path.is_absolute() or ".." in path.parts or path.exists() else []

    @override
    def check(self) -> str:
        return require_on_hub("dataset", self.dataset, self.revision)
