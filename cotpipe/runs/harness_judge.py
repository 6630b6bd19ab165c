"""How lm-evaluation-harness judges answers; `cotpipe evaluate --lm-eval` puts a copy beside the task."""

import json
import re
from pathlib import Path
from typing import Any

from cotpipe.engines.base import as_generated
from cotpipe.recipe.model import Recipe

_HERE = Path(__file__).parent
_SAID = re.compile(r"Answer:(.*)")


def problems(**_: Any) -> dict[str, Any]:
    """The held-out problems, with the prompts as the checkpoint's chat template writes them."""
    from datasets import Dataset

    lines = (_HERE / "problems.jsonl").read_text(encoding="utf-8").split("\n")
    return {"test": Dataset.from_list([json.loads(line) for line in lines if line])}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Judge the answer to a problem in two ways.

    `correct` is the recipe's own judgement: what cotpipe counts. `exact_match` knows nothing of cotpipe:
    the text after the last `Answer:` is the gold answer, but for spaces, `$`, commas and a full stop.
    """
    answers = Recipe.model_validate_json((_HERE / "recipe.json").read_text("utf-8")).answers
    text = as_generated(results[0], 0, truncated=False).text
    said = _SAID.findall(text)
    correct = doc["fits"] and answers.grade(text, doc["answer"], doc["question"]).right
    exact = doc["fits"] and bool(said) and _plain(said[-1]) == _plain(doc["answer"])
    return {"correct": float(correct), "exact_match": float(exact)}


def _plain(text: str) -> str:
    return re.sub(r"[\s$,]|\.$", "", text.strip())
