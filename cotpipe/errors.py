"""Exceptions of cotpipe: user errors, run failures, and retryable failures."""


class UserError(Exception):
    """An error that the user can fix: says what is wrong, where, and what to do (exit status 2)."""


class RunError(Exception):
    """A failure despite valid input, such as a crashed process or a full disk (exit status 1)."""


class TransientError(RunError):
    """A retryable failure: network or server unavailable, process killed."""


def first_line(error: BaseException) -> str:
    r"""What an error says in one line; the name of its type if it says nothing.

    >>> first_line(ValueError("two\nlines")), first_line(KeyError())
    ('two', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
