"""What answers look like: how long they are, and how many are cut off, loop, or have no answer."""

import math
from collections.abc import Sequence

_LONGEST_BLOCK = 200  # characters
_REPEATS = 4
_SHORTEST_LOOP = 40  # characters


def ends_in_loop(text: str) -> bool:
    r"""Whether a text ends in a loop: one block of characters over and over.

    The block has at most 200 characters and stands there at least 4 times in a row, the last of them
    perhaps cut off, over at least 40 characters. A loop that does not end by itself is at the end.

    >>> ends_in_loop("Step 1: " + "2 + 2 = 4, so " * 5 + "2 + 2")
    True
    >>> ends_in_loop("Step 1: 2 + 2 = 4\nStep 2: 4 + 2 = 6\nAnswer: 6")
    False
    """
    for block in range(1, _LONGEST_BLOCK + 1):
        # A text repeats itself every `block` characters where it equals itself moved by so many.
        reach = max(_REPEATS * block, _SHORTEST_LOOP)
        if reach > len(text):
            return False
        if text[-reach:-block] == text[block - reach :]:
            return True
    return False


def quantile(values: Sequence[int], part: float) -> int:
    """The least value that at least a `part` (in (0, 1]) of all values do not exceed.

    >>> quantile([3, 1, 2, 10], 0.5), quantile([3, 1, 2, 10], 0.9)
    (2, 10)
    """
    return sorted(values)[math.ceil(part * len(values)) - 1]
