"""The two ways in which cotpipe stops: the user's mistake, and a run that failed."""


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and the way out (exit status 2)."""


class RunError(Exception):
    """A run that failed although its inputs were right: a dead child process, a full disk (exit status 1)."""
