"""Unknowns that several experiments share, estimated from the data of all of them.

Each experiment is a fit of its own, as in `_inverse.py`, with those of the unknowns that concern
it: it is marched alone, and its rows and their derivatives go into one least-squares problem in
all unknowns. Spans, initial values and constants are traced, so that experiments of one shape
share what is compiled.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from constrainednn._experiments import (
    Experiment,
    Experiments,
    Found,
    OfExperiment,
    apart,
    of_experiment,
)
from constrainednn._field import with_args
from constrainednn._fit import AbstractFittedScheme, AbstractShooting, Shot
from constrainednn._gap import in_total
from constrainednn._inverse import FittedScheme, Shooting, useful_shares
from constrainednn._pieces import Pieces
from constrainednn._problem import Constraint, Problem
from constrainednn._scheme import Observed, SchemeResult, Watch
from constrainednn._unknowns import Arguments, TracedArguments, unknowns_of
from constrainednn._validate import raised_here, shown
from constrainednn._windows import InitialValueScheme

if TYPE_CHECKING:
    from constrainednn._solution import Solution


class FittedExperiments(AbstractFittedScheme):
    """Several marches whose equations hold unknowns that are estimated from all data.

    Attributes:
        fits: Each experiment for itself.
        arguments: The unknowns of all.
        places: Where those of each experiment are among them.
    """

    fits: tuple[FittedScheme, ...]
    arguments: Arguments | TracedArguments
    places: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        return (
            f"{len(self.fits)} marches of windows with {self.fits[0].width} features, Gauss-Newton "
            "on the unknowns"
        )

    def shooting(
        self,
        model: PyTree,
        observed: tuple[Observed, ...],
        *,
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ) -> "_Together":
        """Marches of all experiments, on more and more of their intervals."""
        return _Together(self, model, observed, tolerance, key, watch)

    def at(self, model: PyTree) -> InitialValueScheme:
        """The problem of one experiment for the unknowns that were found.

        Raises:
            ValueError: If the model is that of all.
        """
        if isinstance(model, Experiments):
            raise ValueError(model.asked_alone)
        field, width = self.fits[0].field, self.fits[0].width
        ends = float(model.ends[0]), float(model.ends[-1])
        return InitialValueScheme(with_args(field, model.args), ends, width)

    def sensitivities(
        self, model: PyTree, observed: tuple[Observed, ...]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all data and their derivatives by the unknowns, for a solved model."""
        found = [
            fit.sensitivities(model[index], _own(observed, index))
            for index, fit in enumerate(self.fits)
        ]
        return self.stacked(found)

    def stacked(
        self, found: Sequence[tuple[Float[np.ndarray, " _"], Float[np.ndarray, "_ _"]]]
    ) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "N q"]]:
        """Rows of all experiments, and their derivatives by the unknowns of all."""
        q = sum(item.raw.size for item in self.arguments.unknowns.values())
        columns = [np.zeros((len(r), q)) for r, _ in found]
        for S, (_, own), where in zip(columns, found, self.places, strict=True):
            S[:, list(where)] = own
        return np.concatenate([r for r, _ in found]), np.concatenate(columns)


class _Together(AbstractShooting):
    """Marches of all experiments for given unknowns."""

    def __init__(
        self,
        scheme: FittedExperiments,
        model: Experiments,
        observed: tuple[Observed, ...],
        tolerance: float,
        key: Key[Array, ""],
        watch: Watch,
    ):
        self.scheme, self.names = scheme, model.names
        self.parts = [
            Shooting(fit, model[index], _own(observed, index), tolerance, key, watch)
            for index, fit in enumerate(scheme.fits)
        ]
        self.compile, self.run = 0.0, 0.0
        self.rows = sum(part.rows for part in self.parts)
        reached = lambda share: sum(part.reached(share) for part in self.parts)  # noqa: E731
        self.shares = useful_shares(reached, model.parameters.size)

    def at(self, z: Float[np.ndarray, " q"], share: float, steps: int) -> Shot:
        """Solve for the unknowns up to a share of each interval."""
        shots, left = [], steps
        for part, where in zip(self.parts, self.scheme.places, strict=True):
            shots.append(part.at(z[list(where)], share, left))
            left -= shots[-1].found.steps
        self.compile = sum(part.compile for part in self.parts)
        self.run = sum(part.run for part in self.parts)
        parts = [shot.found.model for shot in shots]
        model = Experiments(
            tuple(eqx.tree_at(lambda u: u.parameters, part, jnp.zeros(0)) for part in parts),
            jnp.asarray(z, jnp.result_type(float)),
            self.scheme.places,
            self.names,
        )
        status, reason = self._verdict([shot.found for shot in shots])
        found = SchemeResult(
            model,
            status,
            reason,
            steps - left,
            tuple(shot.found.pieces for shot in shots),
            self.compile,
            self.run,
        )
        return Shot(found, *self.scheme.stacked([(shot.r, shot.S) for shot in shots]))

    def _verdict(self, found: Sequence[SchemeResult]) -> tuple[str, str]:
        """Status and reason of all: of the first that was interrupted or did not reach its end."""
        pairs = list(zip(self.names, found, strict=True))
        stopped = [pair for pair in pairs if pair[1].status == "interrupted"]
        for name, item in stopped or pairs:
            if item.status != "converged":
                return item.status, f"experiment {name!r}: {item.reason}"
        windows = sum(item.model.count for item in found)
        return "converged", f"the ends of {len(found)} experiments are reached in {windows} windows"


def _own(observed: tuple[Observed, ...], index: int) -> tuple[Observed, ...]:
    """The data of one experiment, of which its own model is the model."""
    return tuple(
        Observed(item.residual.residual, item.rows, item.root)
        for item in observed
        if isinstance(item.residual, OfExperiment) and item.residual.index == index
    )


def of_experiments(
    state: Callable[..., Problem],
    experiments: Any,
    y0: PyTree,
    span: Any,
    breaks: Sequence[float],
    args: PyTree,
) -> Problem:
    """Put the problems of several experiments together.

    Args:
        state: States one alone: `state(y0, span, breaks=breaks, args=args, data=data)`.
        experiments: As the user gave them.
        y0: Initial value of those that state none.
        span: Start and end of those that state none.
        breaks: Breaks of those that state none.
        args: What all share.

    Raises:
        ValueError, TypeError: If they do not fit together, or one of them cannot be stated.
    """
    items = _checked(experiments, args, y0)
    names = tuple(items)
    merged = {name: _merged(item, name, args) for name, item in items.items()}
    _refuse_other_entries(merged)
    problems = []
    for name, item in items.items():
        with _named(name):
            problems.append(
                state(
                    y0 if item.y0 is None else item.y0,
                    span if item.span is None else item.span,
                    breaks=breaks if item.breaks is None else item.breaks,
                    args=merged[name],
                    data=item.data,
                )
            )
    models: list[Pieces] = [problem.model for problem in problems]
    _refuse_other_shapes(names, models)
    stated = [problem.scheme for problem in problems]
    fits = [scheme for scheme in stated if isinstance(scheme, FittedScheme)]
    named = [_full_names(*pair, fit) for pair, fit in zip(items.items(), fits, strict=True)]
    arguments, places = _all_unknowns(fits, named)
    fits = [eqx.tree_at(lambda f: f.arguments, fit, TracedArguments(fit.arguments)) for fit in fits]
    parts = tuple(
        eqx.tree_at(lambda u: (u.parameters, u.arguments), u, (jnp.zeros(0), fit.arguments))
        for u, fit in zip(models, fits, strict=True)
    )
    return Problem(
        [
            _of(constraint, index, name, item.heldout)
            for index, (name, item) in enumerate(items.items())
            for constraint in problems[index].constraints
        ],
        Experiments(parts, jnp.asarray(arguments.start), places, names),
        trainable=lambda u: ([part.head for part in u.parts], u.parameters),
        scheme=FittedExperiments(fits=tuple(fits), arguments=arguments, places=places),
    )


def one_of(solution: "Solution", which: int | str) -> "Solution":
    """The solution of one experiment; `Solution.__getitem__` has the documentation."""
    model, problem, pieces = solution.model, solution.problem, solution.history.pieces
    if not isinstance(model, Experiments) or not isinstance(pieces, tuple):
        raise TypeError("this solution has no experiments: it is a function, solution(x).")
    assert isinstance(problem.scheme, FittedExperiments)
    index = model.index(which)
    fit, u = problem.scheme.fits[index], model[index]
    known = with_args(fit.field, u.args)
    blank = eqx.tree_at(lambda u: u.arguments, problem.model.parts[index], Found(u.args))
    u = eqx.tree_at(lambda u: (u.parameters, u.arguments), u, (jnp.zeros(0), Found(u.args)))
    chosen = [
        (apart(item, model)[0], points)
        for item, points in zip(problem.constraints, solution.streams, strict=True)
        if (own := of_experiment(item)) is not None and own.index == index
    ]
    constraints = [item for item, _ in chosen]
    names = {item.name for item in constraints}
    alone = Problem(
        constraints,
        blank,
        trainable=lambda u: u.head,
        scheme=InitialValueScheme(known, fit.span, fit.width, fit.breaks, fit.longest),
    )
    gaps = [item for item in solution.gap.constraints if item.name in names]
    finite = [item for item in solution.gap.finite if item.name in names]
    history = dataclasses.replace(
        solution.history, pieces=pieces[index], snapshots=((solution.steps, u),)
    )
    return dataclasses.replace(
        solution,
        problem=alone,
        model=u,
        gap=in_total(constraints, gaps, finite),
        parameters=u.count * u.head[0].size,
        history=history,
        streams=tuple(points for _, points in chosen),
    )


def _checked(experiments: Any, args: PyTree, y0: PyTree) -> dict[str, Experiment]:
    """The experiments by name."""
    example = "experiments=[cx.Experiment(data=cx.Data((t, y)), y0=..., span=(t0, t1)), ...]"
    given = experiments if isinstance(experiments, (list, tuple)) else [experiments]
    for item in given:
        if not isinstance(item, Experiment):
            raise TypeError(f"experiments must hold cx.Experiment, got {shown(item)}. {example}.")
    if not given:
        raise ValueError(f"experiments must hold at least one, got none. Write {example}.")
    names = [item.name or f"experiment {k}" for k, item in enumerate(given, 1)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two experiments are named {name!r}: give one another, name={name + ' b'!r}."
            )
    if all(item.heldout for item in given):
        raise ValueError("every experiment is held out: there is none to fit.")
    seen = {id(item): "args or y0 of ivp" for item in unknowns_of((args, y0)).values()}
    for name, item in zip(names, given, strict=True):
        if item.heldout and item.unknowns:
            raise ValueError(
                f"experiment {name!r} is held out, so that nothing tells the unknowns that are its "
                "alone: give numbers, or leave out heldout=True."
            )
        for unknown in item.unknowns:
            if seen.setdefault(id(unknown), f"experiment {name!r}") != f"experiment {name!r}":
                raise ValueError(
                    f"one cx.Unknown stands in {seen[id(unknown)]} and in experiment {name!r}. If "
                    "they share it, put it into args or y0 of ivp alone; if each has its own, "
                    "write cx.Unknown(...) in each."
                )
    return dict(zip(names, given, strict=True))


def _merged(item: Experiment, name: str, args: PyTree) -> PyTree:
    """The arguments of one experiment."""
    if item.args is None:
        return args
    if args is not None and not isinstance(args, dict):
        raise TypeError(
            f"experiment {name!r} has args of its own, which needs args of ivp as a dict, got "
            f"{shown(args)}. Write args={{'name': ...}}."
        )
    return {**(args or {}), **item.args}


def _refuse_other_entries(merged: dict[str, PyTree]) -> None:
    """Refuse an entry of args that only some have: a slip in its name, or one forgotten."""
    entries = {
        name: set(args) if isinstance(args, dict) else set() for name, args in merged.items()
    }
    every = set().union(*entries.values())
    for name, own in entries.items():
        if own != every:
            missing = ", ".join(sorted(map(repr, every - own)))
            raise ValueError(
                f"experiment {name!r} lacks {missing} in args, which another one has. Give it to "
                "each, or in args of ivp as the default."
            )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the experiment's name before a sentence of ours."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if not raised_here(error):
            raise
        raise type(error)(f"experiment {name!r}: {error}") from error


def _refuse_other_shapes(names: tuple[str, ...], models: Sequence[Pieces]) -> None:
    """Refuse initial values of different structures: it is one equation."""
    shapes = [jax.tree.map(jnp.shape, model.unravel(model.states[0, 0])) for model in models]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"y0 has the shape {shapes[0]} in experiment {names[0]!r} and {shape} in "
                f"experiment {name!r}: the equation is the same in all."
            )


def _full_names(name: str, item: Experiment, fit: FittedScheme) -> dict[str, str]:
    """The names of the unknowns of one experiment, in its own fit and among those of all."""
    own = set(unknowns_of(item.args))
    full = {}
    for short in fit.arguments.unknowns:
        in_start = item.y0 is not None and (short == "y0" or short.startswith("y0."))
        full[short] = f"{name}.{short}" if short in own or in_start else short
    return full


def _all_unknowns(
    fits: Sequence[FittedScheme], named: Sequence[dict[str, str]]
) -> tuple[Arguments, tuple[tuple[int, ...], ...]]:
    """The unknowns of all experiments by full name, and where those of each are among them."""
    shared = {full for pairs in named for short, full in pairs.items() if short == full}
    for pairs in named:
        for short, full in pairs.items():
            if short != full and full in shared:
                raise ValueError(f"two unknowns are named {full!r}: rename the experiment.")
    arguments = Arguments(
        {
            full: fit.arguments.unknowns[short]
            for fit, pairs in zip(fits, named, strict=True)
            for short, full in pairs.items()
        }
    )
    where, place = {}, 0
    for name, item in arguments.unknowns.items():
        where[name] = range(place, place + item.raw.size)
        place += item.raw.size
    return arguments, tuple(
        tuple(k for full in pairs.values() for k in where[full]) for pairs in named
    )


def _of(constraint: Constraint, index: int, name: str, heldout: bool) -> Constraint:
    """A constraint of one experiment as one of the problem of all."""
    residual = OfExperiment(constraint.residual, index, name, heldout)
    full = f"{name}: {constraint.name}"
    return eqx.tree_at(lambda c: (c.residual, c.name), constraint, (residual, full))
