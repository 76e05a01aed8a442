"""What this package raises and warns of; by the class, its own sentences are told from a user's."""

__all__ = [
    "BadTypeError",
    "BadValueError",
    "LoadError",
    "ProblemError",
    "ProblemWarning",
    "RunWarning",
    "StoreError",
    "UnreadableError",
    "UsageError",
]


class UsageError(Exception):
    """A mistake in what a user wrote; the message says what to write instead."""


class BadValueError(UsageError, ValueError):
    """An argument has a value that cannot be used."""


class BadTypeError(UsageError, TypeError):
    """An argument is of a type that cannot be used."""


class ProblemError(BadValueError):
    """A constraint cannot be solved as it is stated."""


class ProblemWarning(UserWarning):
    """A constraint can be solved, but probably not as it is meant."""


class StoreError(Exception):
    """A file could not be written or is not what it should be."""


class UnreadableError(StoreError):
    """A file that is not damaged, as far as is known, and yet cannot be read here and now."""


class RunWarning(UserWarning):
    """Something went wrong with the files of a run; nothing that was saved before is lost."""


class LoadError(Exception):
    """A problem could not be loaded; the message says what to write instead.

    Attributes:
        details: The user's own traceback, where the file raised; empty otherwise.
    """

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details
