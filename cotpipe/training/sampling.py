"""Dynamic sampling: prompts from a pool, and others in place of groups that teach nothing."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from typing_extensions import override

from cotpipe.data.rows import Example, Rollout
from cotpipe.randomness import named_seed
from cotpipe.rationale.rewards import RewardParts
from cotpipe.training.group_trainer import GroupTrainer
from cotpipe.training.pool import PromptPool
from cotpipe.training.recording import RecordRollouts
from cotpipe.training.resume import ResumableTrainer
from cotpipe.training.scoring import Scorer
from cotpipe.training.validation import Course

_STATE = "pool.json"


@dataclass
class Group:
    """The completions of one prompt."""

    row: int  # of the examples
    num_prompt_tokens: int
    tokens: list[list[int]]
    texts: list[str]
    parts: list[RewardParts]
    advantages: list[float] | None = None  # of the groups that are trained on

    @property
    def teaches(self) -> bool:
        """Whether the completions get different rewards: without, all advantages are 0."""
        return len({part.reward for part in self.parts}) > 1

    @property
    def pass_rate(self) -> float:
        """The share of right and well-formed completions, in [0, 1]."""
        return sum(part.right for part in self.parts) / len(self.parts)

    @property
    def num_sampled_tokens(self) -> int:
        """The length of all completions together (tokens)."""
        return sum(map(len, self.tokens))


class PoolTrainer(ResumableTrainer, GroupTrainer):
    """Draws the prompts of every optimizer step from a pool, and replaces groups without variance.

    Replacing them is DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), bounded by
    `replacements` prompts per optimizer step. All processes keep the same pool: each draws for all,
    writes the completions of its own share, and hears of the others' results. A completion has a seed
    of its own, so that the number of processes changes neither prompts nor completions.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        pool: PromptPool,
        scorer: Scorer,
        course: Course,
        replacements: int,
        recording: RecordRollouts,
        **arguments: Any,
    ) -> None:
        """Prepare the trainer.

        Args:
            examples: The rows that the pool refers to.
            pool: The prompts.
            scorer: The reward.
            course: The validations, which tell whether brevity is paid.
            replacements: The most prompts that are drawn in place of others per optimizer step.
            recording: Takes in every rollout.
            arguments: Those of `GRPOTrainer`.
        """
        super().__init__(reward_funcs=_reward_of, **arguments)
        self._examples, self._pool, self._scorer, self._course = examples, pool, scorer, course
        self._replacements, self._recording = replacements, recording
        self._ready: list[Group] | None = None  # what the next rollout returns

    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        groups, others = self._sample(len(inputs) // self.num_generations)
        self._ready = groups
        chosen = [
            {"prompt": self._examples[group.row].prompt, "paid": part.reward}
            for group in groups
            for part in group.parts
        ]
        scored: dict[str, Any] = super()._generate_and_score_completions(chosen)
        # A mean of equal rewards is rounded. What is left of them after a division by their deviation
        # looks like an advantage, and AdamW makes a whole step of however small a gradient.
        teaches = [group.teaches for group in groups for _ in group.parts]
        scored["advantages"] *= scored["advantages"].new_tensor(teaches)
        advantages = scored["advantages"].view(len(groups), self.num_generations).tolist()
        for group, own in zip(groups, advantages, strict=True):
            group.advantages = own
        rows = [row for group in [*groups, *others] for row in self._rollouts(group)]
        everyone = gather_object(rows)
        if self.accelerator.is_main_process:
            self._recording.add(everyone)
        return scored

    def _rollouts(self, group: Group) -> Iterator[Rollout]:
        """The rows of a group."""
        example = self._examples[group.row]
        for place, (tokens, text, part) in enumerate(
            zip(group.tokens, group.texts, group.parts, strict=True)
        ):
            yield Rollout(
                step=self.state.global_step + 1,
                example=group.row,
                problem_id=example.problem_id,
                helped=not self._pool.is_bare(group.row),
                trained=group.advantages is not None,
                prompt=example.prompt,
                completion=text,
                num_tokens=len(tokens),
                truncated=tokens[-1] not in self.eos_token_ids,
                advantage=group.advantages[place] if group.advantages else None,
                correct=bool(part.correct),  # a user's reward may be made of other types
                valid_format=bool(part.valid_format),
                reward=float(part.reward),
                base=float(part.base),
                brevity_steps=float(part.brevity_steps),
                length=float(part.length),
            )

    @override
    def _generate_single_turn(self, prompt_ids: Any, *arguments: Any, **options: Any) -> Any:
        if self._ready is None:
            return super()._generate_single_turn(prompt_ids, *arguments, **options)
        groups, self._ready = self._ready, None
        return [tokens for group in groups for tokens in group.tokens], None

    def _sample(self, wanted: int) -> tuple[list[Group], list[Group]]:
        """This process's share of an optimizer step's groups, and of those that it does not train on.

        Groups that teach nothing fill up what could not be replaced.
        """
        total = wanted * self.accelerator.num_processes
        left = self._replacements
        taught: list[Group] = []
        others: list[Group] = []
        drawn: list[int] = []
        missing = total
        while missing:
            rows = self._pool.draw(missing, drawn)
            if not rows:
                break  # dry: what was drawn fills the step
            groups = self._shared_out(rows, len(drawn))
            drawn += rows
            self._pool.tell({one.row: one.pass_rate for one in groups})
            taught += [group for group in groups if group.teaches]
            others += [group for group in groups if not group.teaches]
            missing = min(total - len(taught), left)
            left -= missing
        sampled = [*taught, *others]
        chosen, unused = sampled[:total], sampled[total:]
        self._log_sampled(sampled, chosen)
        self._log_metric("replaced", len(drawn) - total)
        self._log_metric("bare", sum(self._pool.is_bare(row) for row in drawn) / len(drawn))
        number = self.accelerator.process_index
        own = slice(number * wanted, (number + 1) * wanted)
        return chosen[own], unused[number :: self.accelerator.num_processes]

    def _log_sampled(self, sampled: Sequence[Group], chosen: Sequence[Group]) -> None:
        """Log what was sampled for an optimizer step, and how many tokens it trains on."""
        scored = [part for group in sampled for part in group.parts]
        self._log_metric("correct", sum(part.correct for part in scored) / len(scored))
        self._log_metric("valid_format", sum(part.valid_format for part in scored) / len(scored))
        idle = self._skips_idle_rows()
        trained_tokens = sum(
            group.num_prompt_tokens + group.num_sampled_tokens
            for group in chosen
            if group.teaches or not idle
        )
        self._log_metric("sampled_tokens", sum(group.num_sampled_tokens for group in sampled))
        self._log_metric("trained_tokens", trained_tokens)

    def _shared_out(self, rows: Sequence[int], before: int) -> list[Group]:
        """The groups of prompts, in their order; each process writes those of its share.

        Args:
            rows: The prompts.
            before: How many were drawn before for this optimizer step.
        """
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        places = range(len(rows))[own]
        groups = self._complete(rows[own], [before + place for place in places])
        everyone = gather_object(list(zip(places, groups, strict=True)))
        return [group for _, group in sorted(everyone, key=lambda one: one[0])]

    def _complete(self, rows: Sequence[int], numbers: Sequence[int]) -> list[Group]:
        """Sample and score the completions of prompts, which have numbers in the optimizer step."""
        size = self.num_generations
        prompts = [self._examples[row].prompt for row in rows for _ in range(size)]
        prompt_ids = self._tokenize_prompts(prompts)[0] if prompts else []
        seeds = [
            named_seed(self.args.seed, "completion", self.state.global_step, number, sample)
            for number in numbers
            for sample in range(size)
        ]
        tokens = self._written(prompt_ids, seeds)
        texts = self.processing_class.batch_decode(tokens, skip_special_tokens=True)
        groups = []
        for place, row in enumerate(rows):
            own = slice(place * size, (place + 1) * size)
            pays = self._course.pays_brevity and self._pool.is_bare(row)
            lengths = [len(each) for each in tokens[own]]
            parts = self._scorer.group(texts[own], lengths, self._examples[row], pays)
            num_prompt_tokens = len(prompt_ids[place * size])
            groups.append(Group(row, num_prompt_tokens, tokens[own], texts[own], parts))
        return groups

    @override
    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.should_save:
            state = json.dumps(self._pool.state())
            Path(output_dir, _STATE).write_text(state, encoding="utf-8")

    @override
    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        # TRL restarts its micro-batch counter at zero, which would shift the generation batches.
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        if checkpoint is not None:
            state = Path(checkpoint, _STATE).read_text(encoding="utf-8")
            self._pool.restore(json.loads(state))


def _reward_of(paid: list[float], **_: Any) -> list[float]:
    """The rewards that the completions were sampled with."""
    return paid
