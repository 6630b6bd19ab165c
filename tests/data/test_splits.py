import random
from collections import Counter

from cotpipe.data.splits import near_duplicates, position_of, split_at
from cotpipe.recipe.problems import SplitShares


def test_shares_are_met_and_nothing_moves_when_problems_are_added():
    shares = SplitShares().by_name()
    few = {f"id{number}": split_at(position_of(f"id{number}"), shares) for number in range(1000)}
    many = {f"id{number}": split_at(position_of(f"id{number}"), shares) for number in range(5000)}
    assert all(many[key] == split for key, split in few.items())
    for split, count in Counter(many.values()).items():
        assert abs(count / 5000 - shares[split]) < 0.03


def test_empty_splits_get_nothing():
    shares = SplitShares(stage1=0.5, stage2=0.5, mining=0, validation=0, test=0).by_name()
    assert {split_at(number / 100, shares) for number in range(100)} == {"stage1", "stage2"}
    assert split_at(0.9999999999999, shares) == "stage2"


def test_near_duplicates_of_held_out_questions():
    held_out = ["Mia has 12 apples and buys 9 more. How many apples does Mia have now?"]
    questions = [
        ("same", "Mia has 12 apples, and buys 9 more! How many apples does Mia have now"),
        ("other numbers", "Mia has 30 apples and buys 4 more. How many apples does Mia have now?"),
        ("other", "A train leaves at noon with 40 people. How many are on it?"),
    ]
    assert set(near_duplicates(questions, held_out, 0.9)) == {"same"}
    assert set(near_duplicates(questions, held_out, 1.0)) == {"same"}


def test_few_repetitions_are_missed_and_none_is_made_up():
    rng = random.Random(3)
    held_out = [" ".join(str(rng.randint(0, 10**6)) for _ in range(45)) for _ in range(300)]
    # Of 43 shingles, one changed word at the start leaves 42 (index 0.95), one in the middle 40 (0.87).
    repeated = [
        (f"r{number}", f"other {text.split(' ', 1)[1]}") for number, text in enumerate(held_out)
    ]
    changed = [
        (f"c{number}", " ".join([*text.split()[:20], "x", *text.split()[21:]]))
        for number, text in enumerate(held_out)
    ]
    found = near_duplicates(repeated + changed, held_out, 0.9)
    assert not [key for key in found if key.startswith("c")]
    assert len(found) >= 295
    assert all(held_out[int(key[1:])] == text for key, text in found.items())
