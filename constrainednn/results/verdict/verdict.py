"""The verdict on a statement."""

import dataclasses
from typing import Literal

from constrainednn.results.error_estimate.error_estimate import ErrorEstimate
from constrainednn.results.error_estimate.field import FieldErrorEstimate


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """Whether a statement holds.

    Attributes:
        word: "solved" where residual and conditions are below the tolerance on fresh points and the
            error estimate does not object; "not solved" where one of them is not; "cannot tell"
            where what was measured does not decide; "no tolerance to meet" for regression, fits,
            and other statements without one.
        reason: The numbers behind it, in a sentence.
        error: The error estimate that was taken into account; None if there is none.
    """

    word: Literal["solved", "not solved", "cannot tell", "no tolerance to meet"]
    reason: str
    error: ErrorEstimate | FieldErrorEstimate | None = None

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"

    @property
    def success(self) -> bool:
        """False where the statement does not hold, or nobody can tell: the exit code is then 1."""
        return self.word in ("solved", "no tolerance to meet")
