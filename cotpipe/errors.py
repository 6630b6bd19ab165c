"""The ways in which cotpipe stops: the user's mistake, and a run that failed, for good or for the moment."""


class UserError(Exception):
    """Something the user can put right: says what is wrong, where, and the way out (exit status 2)."""


class RunError(Exception):
    """A run that failed although its inputs were right: a dead child process, a full disk (exit status 1)."""


class TransientError(RunError):
    """A failure that another try may not meet: a lost network or server, a process that somebody killed."""
