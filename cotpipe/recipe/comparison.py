"""A comparison: arms, each a recipe with changes, over several seeds; read from YAML."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotpipe.errors import UserError
from cotpipe.recipe.files import (
    SHIPPED,
    change,
    describe,
    override_values,
    read_mapping,
    recipe_path,
    validated,
)
from cotpipe.recipe.model import Recipe
from cotpipe.recipe.stages import PUBLISHED_STAGES
from cotpipe.recipe.trainers import Sft

_TERMS = ("evaluation", "problems.source", "problems.answers", "student")
"""What no arm may change."""
_SAME_SHARE = 1e-9

SHIPPED_COMPARISONS = SHIPPED.parent / "comparisons"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,17}$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ArmChanges(_Model):
    """How an arm differs from the base recipe, as written in the file."""

    stages: tuple[str | dict[str, Any], ...] | None = None
    """Stages of the base recipe by name, or whole ones; default: all of the base recipe."""
    set: dict[str, Any] = {}
    """New values by field, such as `stage2.trainer.learning_rate`."""
    budget_of: Name | None = None
    """Another arm: the epochs of the last SFT stage are chosen to take as many tokens as that one."""


class _File(_Model):
    name: Name
    recipe: str
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=1000)
    baseline: Name
    arms: dict[Name, ArmChanges | None] = Field(min_length=2, max_length=100)


class Arm(_Model):
    """One arm of a comparison: a recipe, whose seed is replaced."""

    recipe: Recipe
    budget_of: Name | None = None

    def with_seed(self, seed: int) -> Recipe:
        """Its recipe for one seed."""
        return self.recipe.model_copy(update={"seed": seed})


class Comparison(_Model):
    """Arms that are compared with one of them, the baseline, over several seeds."""

    name: Name
    seeds: tuple[Seed, ...]
    baseline: Name
    arms: dict[Name, Arm]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is listed twice")
        if self.baseline not in self.arms:
            known = ", ".join(self.arms)
            raise ValueError(f"baseline: there is no arm {self.baseline!r}; the arms are: {known}")
        for name, arm in self.arms.items():
            self._require_budget(name, arm)
        for name, arm in self.arms.items():
            self._require_same_terms(name, arm)
        return self

    def _require_same_terms(self, name: str, arm: Arm) -> None:
        """Every arm is judged on the same problems, by the same rules, in the same tokens."""
        first = self.arms[self.baseline].recipe
        for field in _TERMS:
            if arm.recipe.fields(field) != first.fields(field):
                raise ValueError(
                    f"arms.{name}: it changes {field}, so that it would be judged on other problems "
                    f"or other terms than {self.baseline}; change it in the base recipe"
                )
        held_out, others = (recipe.problems.splits.by_name() for recipe in (first, arm.recipe))
        for split in ("validation", "test"):
            if abs(held_out[split] - others[split]) > _SAME_SHARE:
                raise ValueError(
                    f"arms.{name}: it changes the share of the {split} problems; an arm may only "
                    "divide the training problems otherwise"
                )

    def _require_budget(self, name: str, arm: Arm) -> None:
        if arm.budget_of is None:
            return
        if arm.budget_of not in self.arms or self.arms[arm.budget_of].budget_of:
            raise ValueError(
                f"arms.{name}.budget_of: {arm.budget_of!r} is not an arm with a budget of its own"
            )
        if not isinstance(arm.recipe.stages[-1].trainer, Sft):
            raise ValueError(
                f"arms.{name}.budget_of: its last stage is not SFT, so no number of epochs decides "
                "how many tokens it takes"
            )

    def members(self, arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
        """Every chosen arm with every chosen seed, seed by seed; an arm after that of its budget.

        Args:
            arms: Names of the arms; none: all.
            seeds: The seeds; none: all.

        Raises `UserError` for an arm or a seed that is not in the comparison.
        """
        for what, chosen, known in (("arm", arms, self.arms), ("seed", seeds, self.seeds)):
            for one in chosen:
                if one not in known:
                    listed = ", ".join(map(str, known))
                    raise UserError(
                        f"{self.name}: no {what} {one!r} in the comparison; it has: {listed}"
                    )
        ordered = sorted(self.arms, key=lambda name: self.arms[name].budget_of is not None)
        return [
            (name, seed)
            for seed in seeds or self.seeds
            for name in ordered
            if not arms or name in arms
        ]


def load_comparison(
    name_or_path: str,
    overrides: Sequence[str] = (),
    name: str | None = None,
    recipe: str | None = None,
) -> Comparison:
    """Load a comparison by path, or a shipped one by name.

    Args:
        name_or_path: A YAML file, or the name of a comparison that comes with cotpipe.
        overrides: Changes of the base recipe, such as `student.model=FOLDER`.
        name: Its name in the store; default: the one in the file.
        recipe: The base recipe, by path or name; default: the one that the file names.

    Raises `UserError` for whatever is wrong with the file, its base recipe, or one of its arms.
    """
    path = _find(name_or_path)
    values = read_mapping(
        path, "a comparison is a mapping with name, recipe, seeds, baseline, arms"
    )
    try:
        file = _File.model_validate(values | ({"name": name} if name else {}))
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error, values)}") from None
    base_path = recipe_path(recipe) if recipe else recipe_path(file.recipe, path.parent)
    base = read_mapping(base_path, "a recipe is a mapping of sections, such as `problems:`")
    change(base, override_values(overrides), "--set ")
    validated(base, str(base_path))
    arms = {
        name: _arm(changes or ArmChanges(), base, f"{path}: arms.{name}", f"{file.name}.{name}")
        for name, changes in file.arms.items()
    }
    try:
        return Comparison(name=file.name, seeds=file.seeds, baseline=file.baseline, arms=arms)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from None


def shipped_comparisons() -> list[str]:
    """The names of the comparisons that come with cotpipe."""
    return sorted(path.stem for path in SHIPPED_COMPARISONS.glob("*.yaml"))


def _arm(changes: ArmChanges, base: Mapping[str, Any], told: str, name: str) -> Arm:
    values = copy.deepcopy(dict(base))
    if changes.stages is not None:
        values["stages"] = [_stage(one, values, told) for one in changes.stages]
    change(values, changes.set, f"{told}.set: ")
    values["name"] = f"{name}.as-{changes.budget_of}" if changes.budget_of else name
    recipe = validated(values, told)
    if changes.budget_of:
        recipe = _of_one_epoch(recipe)
    return Arm(recipe=recipe, budget_of=changes.budget_of)


def _of_one_epoch(recipe: Recipe) -> Recipe:
    """With one epoch of the last stage, from first to last, which tells how many fill a budget."""
    *others, last = recipe.stages
    examples, trainer = last.examples.model_copy(update={"num_epochs": 1}), last.trainer
    if last.validates:
        validation = trainer.validation.model_copy(update={"stops": False})
        trainer = trainer.model_copy(update={"validation": validation})
    stage = last.model_copy(update={"examples": examples, "trainer": trainer})
    return recipe.model_copy(update={"stages": (*others, stage)})


def _stage(one: str | dict[str, Any], values: Mapping[str, Any], told: str) -> dict[str, Any]:
    """A stage of the base recipe by its name, or a whole one."""
    if isinstance(one, dict):
        return one
    published = [stage.model_dump(mode="json") for stage in PUBLISHED_STAGES]
    stages = {stage["name"]: stage for stage in values.get("stages") or published}
    if one not in stages:
        known = ", ".join(stages) or "none"
        raise UserError(f"{told}.stages: the base recipe has no stage {one!r}; its stages: {known}")
    found: dict[str, Any] = stages[one]
    return found


def _find(name_or_path: str) -> Path:
    for path in (Path(name_or_path), SHIPPED_COMPARISONS / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    raise UserError(
        f"no file {name_or_path!r}, and no shipped comparison of that name "
        f"({', '.join(shipped_comparisons())})"
    )
