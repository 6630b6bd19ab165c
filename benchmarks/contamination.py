"""Duration of the search for training questions that nearly duplicate a held-out one.

    python benchmarks/contamination.py [--questions 100000]

A tenth of the questions is held out; 1 % of the others are copies of one with a word changed.
"""

import argparse
import json
import random
import sys
import time

from cotpipe.data.splits import near_duplicates

_WORDS = [
    f"{first}{second}"
    for first in "bdfglmnprst"
    for second in ("ag", "ell", "ist", "om", "und", "ark", "ip")
]


def question(rng: random.Random) -> list[str]:
    """About 45 words, as in GSM8K, some of them numbers."""
    return [
        str(rng.randint(2, 999)) if rng.random() < 0.1 else rng.choice(_WORDS)
        for _ in range(rng.randint(30, 60))
    ]


def main() -> None:
    """Plant near duplicates, search for them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    count = parser.parse_args().questions
    rng = random.Random(1)
    held_out = [question(rng) for _ in range(count // 10)]
    training = [question(rng) for _ in range(count - len(held_out))]
    planted = rng.sample(range(len(training)), len(training) // 100)
    for index in planted:
        training[index] = list(rng.choice(held_out))
        training[index][0] = "other"
    questions = [(str(number), " ".join(words)) for number, words in enumerate(training)]
    started = time.perf_counter()
    found = near_duplicates(questions, [" ".join(words) for words in held_out], 0.9)
    seconds = time.perf_counter() - started
    result = {
        "questions": count, "seconds": round(seconds, 1), "planted": len(planted),
        "planted_found": len(found.keys() & {str(index) for index in planted}),
        "others_found": len(found.keys() - {str(index) for index in planted}),
    }  # fmt: skip
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
