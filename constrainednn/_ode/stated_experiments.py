"""One problem with shared unknowns from several experiments."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from constrainednn._common.messages import shown
from constrainednn._ode.fitting.experiments import FittedExperiments
from constrainednn._ode.fitting.initial_values import FittedScheme
from constrainednn._problem.constraint import Constraint
from constrainednn._problem.equation_arguments import Arguments, TracedArguments
from constrainednn._problem.experiments import Experiment, Experiments, OfExperiment
from constrainednn._problem.problem import Problem
from constrainednn._problem.unknowns import unknowns_of
from constrainednn.errors import BadTypeError, BadValueError, UsageError
from constrainednn.models.pieces import Pieces


def of_experiments(
    state: Callable[..., Problem],
    experiments: Any,
    *,
    y0: PyTree,
    span: Any,
    args: PyTree,
    breaks: Sequence[float],
) -> Problem:
    """Combine the problems of several experiments.

    Args:
        state: States one of them: `state(y0, span, args=args, data=data, breaks=breaks)`.
        experiments: As the user gave them.
        y0: Initial value of those that state none.
        span: Start and end of those that state none.
        args: Arguments that all share.
        breaks: Breaks of those that state none.

    Raises:
        ValueError, TypeError: If they are inconsistent, or one of them cannot be stated.
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
                    args=merged[name],
                    data=item.data,
                    breaks=breaks if item.breaks is None else item.breaks,
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
        trainable=_trained,
        scheme=FittedExperiments(fits=tuple(fits), arguments=arguments, places=places),
    )


def refuse_beside(**given: Any) -> None:
    """Refuse arguments that each experiment states for itself.

    Raises:
        ValueError: Naming the argument.
    """
    for name, value in given.items():
        if value is not None:
            raise BadValueError(f"experiments= cannot be combined with {name}=: leave one out.")


def _trained(u: Experiments) -> tuple[PyTree, ...]:
    """What is solved for; a function with a name, so that a problem can be pickled."""
    return *(part.head for part in u.parts), u.parameters


def _checked(experiments: Any, args: PyTree, y0: PyTree) -> dict[str, Experiment]:
    """The experiments by name."""
    example = "experiments=[cx.Experiment(data=cx.Data((t, y)), y0=..., span=(t0, t1)), ...]"
    given = experiments if isinstance(experiments, (list, tuple)) else [experiments]
    for item in given:
        if not isinstance(item, Experiment):
            raise BadTypeError(
                f"experiments must hold cx.Experiment, got {shown(item)}. {example}."
            )
    if not given:
        raise BadValueError(f"experiments must hold at least one, got none. Write {example}.")
    names = [item.name or f"experiment {k}" for k, item in enumerate(given, 1)]
    for name in names:
        if names.count(name) > 1:
            raise BadValueError(
                f"two experiments are named {name!r}: rename one, as in name={name + ' b'!r}."
            )
    if all(item.heldout for item in given):
        raise BadValueError("every experiment is held out: none is left to fit.")
    owners = {id(item): "args or y0 of ivp" for item in unknowns_of((args, y0)).values()}
    for name, item in zip(names, given, strict=True):
        if item.heldout and item.unknowns:
            raise BadValueError(
                f"experiment {name!r} is held out, so that no data determine the unknowns that "
                "only it has: give numbers, or leave out heldout=True."
            )
        for unknown in item.unknowns:
            if owners.setdefault(id(unknown), f"experiment {name!r}") != f"experiment {name!r}":
                raise BadValueError(
                    f"one cx.Unknown is in {owners[id(unknown)]} and in experiment {name!r}. If "
                    "they share it, put it only into args or y0 of ivp; if each has its own, "
                    "write cx.Unknown(...) in each."
                )
    return dict(zip(names, given, strict=True))


def _merged(item: Experiment, name: str, args: PyTree) -> PyTree:
    """The arguments of one experiment."""
    if item.args is None:
        return args
    if args is not None and not isinstance(args, dict):
        raise BadTypeError(
            f"experiment {name!r} has args of its own, which needs args of ivp as a dict, got "
            f"{shown(args)}. Write args={{'name': ...}}."
        )
    return {**(args or {}), **item.args}


def _refuse_other_entries(merged: dict[str, PyTree]) -> None:
    """Refuse an entry of args that only some have: a misspelt name, or one forgotten."""
    entries = {
        name: set(args) if isinstance(args, dict) else set() for name, args in merged.items()
    }
    every = set().union(*entries.values())
    for name, own in entries.items():
        if own != every:
            missing = ", ".join(sorted(map(repr, every - own)))
            raise BadValueError(
                f"experiment {name!r} lacks {missing} in args, which another one has. Give it in "
                "each, or as the default in args of ivp."
            )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of the experiment in front of our own error messages."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f"experiment {name!r}: {error}") from error


def _refuse_other_shapes(names: tuple[str, ...], models: Sequence[Pieces]) -> None:
    """Refuse initial values of different shapes: all experiments obey one equation."""
    shapes = [jax.tree.map(jnp.shape, model.unravel(model.states[0, 0])) for model in models]
    for name, shape in zip(names, shapes, strict=True):
        if shape != shapes[0]:
            raise BadValueError(
                f"y0 has the shape {shapes[0]} in experiment {names[0]!r} and {shape} in "
                f"experiment {name!r}, but all share one equation."
            )


def _full_names(name: str, item: Experiment, fit: FittedScheme) -> dict[str, str]:
    """Names of the unknowns of one experiment: from those in its own fit to the full ones."""
    own = set(unknowns_of(item.args))
    full = {}
    for short in fit.arguments.unknowns:
        in_start = item.y0 is not None and (short == "y0" or short.startswith("y0."))
        full[short] = f"{name}.{short}" if short in own or in_start else short
    return full


def _all_unknowns(
    fits: Sequence[FittedScheme], named: Sequence[dict[str, str]]
) -> tuple[Arguments, tuple[tuple[int, ...], ...]]:
    """The unknowns of all experiments by full name, and the indices of those of each."""
    shared = {full for pairs in named for short, full in pairs.items() if short == full}
    for pairs in named:
        for short, full in pairs.items():
            if short != full and full in shared:
                raise BadValueError(f"two unknowns are named {full!r}: rename the experiment.")
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
    """A constraint of one experiment as a constraint of the combined problem."""
    residual = OfExperiment(constraint.residual, index, name, heldout)
    full = f"{name}: {constraint.name}"
    return eqx.tree_at(lambda c: (c.residual, c.name), constraint, (residual, full))
