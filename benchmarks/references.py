"""Reference solutions in forty digits, each computed twice; independent of constrainednn and jax.

    python benchmarks/references.py                  # every reference, a table, about two minutes
    python benchmarks/references.py robertson        # some of them

Three ways to a solution, chosen to share as little as possible:

- closed forms, evaluated in mpmath;
- `_taylor`: Taylor series of order 40 by recurrences written out for each field;
- `_collocate`: implicit collocation at Gauss or Radau points, Newton to the working precision.

A smooth initial value problem has its Taylor solution compared with Gauss, a stiff one Gauss with
Radau. A closed form is compared with Gauss started on it, in the direction in which errors do not
grow: that checks the differential equation, and the far boundary value wherever the closed form
takes it. Constants written as decimals or fractions are exact (8/3, not its nearest float), and
so are the initial values; the times are floats, and values belong to exactly those floats, since
inside the jumps of van der Pol mu = 1000 a rounded time alone costs 1e-10.

The files are kept in the folder CONSTRAINEDNN_REFERENCES, or in the temporary folder, under a
hash of this file, so that any edit computes them again.
"""

import dataclasses
import functools
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mpmath import mp, mpf
from scipy.integrate import solve_ivp
from scipy.linalg import lu_factor, lu_solve
from scipy.special import mathieu_a

DIGITS = 40
TOLERANCE = 1e-25  # of a step, relative to each component's size within it
UNIFORM = 2000

State = list  # of mpf, one per component
Field = Callable[[mpf, Sequence], State]


@dataclasses.dataclass(frozen=True)
class Reference:
    """A solution rounded to float64, and how far a second computation is from it.

    Attributes:
        t: (n,) sorted; 2,000 uniform points joined with all steps of the reference.
        y: (n, d), correctly rounded values unless `disagreement` says otherwise.
        disagreement: `relative_error` between `y` and the second computation, whose values are not
            rounded first. About 5e-17 is what rounding `y` alone leaves.
        source: The two computations.
    """

    t: np.ndarray
    y: np.ndarray
    disagreement: float
    source: str


def relative_error(u: np.ndarray, ref: Reference) -> float:
    """The largest over components of the relative L2 error of `u`, (n, d) values at `ref.t`."""
    u = np.asarray(u)
    if u.shape != ref.y.shape:
        raise ValueError(f"Expected values of shape {ref.y.shape} at ref.t, got {u.shape}.")
    return _largest_ratio(u - ref.y, ref.y)


def reference(name: str) -> Reference:
    """The reference of the problem `name`, read from disk or computed.

    Raises:
        ValueError: If there is no such problem.
    """
    if name not in _COMPUTATIONS:
        raise ValueError(f"No reference {name!r}. Known: {', '.join(_COMPUTATIONS)}.")
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    default = Path(tempfile.gettempdir()) / "constrainednn-references"
    path = Path(os.environ.get("CONSTRAINEDNN_REFERENCES", default)) / f"{name}-{digest}.npz"
    if not path.exists():
        with mp.workdps(DIGITS):
            computed = _COMPUTATIONS[name]()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez(file, **dataclasses.asdict(computed))
        os.replace(file.name, path)
    with np.load(path) as saved:
        return Reference(saved["t"], saved["y"], float(saved["disagreement"]), str(saved["source"]))


def eigenvalues() -> Reference:
    """The first three eigenvalues of Mathieu's equation, as `y` of shape (1, 3); `t` is (0,).

    y'' + (lam - 2 q cos 2x) y = 0 with q = 5 and y'(0) = y'(pi) = 0. These are a_0, a_1 and a_2:
    the odd ones, of period 2 pi, meet the boundary conditions as well.
    """
    return reference("mathieu")


def _largest_ratio(difference: np.ndarray, y: np.ndarray) -> float:
    return float(np.max(np.linalg.norm(difference, axis=0) / np.linalg.norm(y, axis=0)))


def _compare(first: Callable, second: Callable, t: np.ndarray, source: str) -> Reference:
    values = [first(mpf(float(s))) for s in t]
    y = np.array(values, dtype=float)
    others = [second(mpf(float(s))) for s in t]
    difference = [
        [float(a - b) for a, b in zip(row, other, strict=True)]
        for row, other in zip(y.tolist(), others, strict=True)
    ]
    return Reference(t, y, _largest_ratio(np.array(difference), y), source)


# Trajectories: pieces between steps, each a function of exact time. Steps end on floats.


@dataclasses.dataclass(frozen=True)
class _Piece:
    low: float
    high: float
    value: Callable[[mpf], State]


def _evaluator(pieces: Sequence[_Piece]) -> Callable[[mpf], State]:
    pieces = sorted(pieces, key=lambda piece: piece.low)
    lows = np.array([piece.low for piece in pieces])
    return lambda t: pieces[max(0, np.searchsorted(lows, float(t), "right") - 1)].value(t)


def _grid(span: tuple[float, float], pieces: Sequence[_Piece]) -> np.ndarray:
    steps = [end for piece in pieces for end in (piece.low, piece.high)]
    return np.unique(np.concatenate([np.linspace(*span, UNIFORM), steps]))


# Taylor series.


def _product(a: Sequence, b: Sequence, k: int) -> mpf:
    """Coefficient k of the product of two series."""
    return mp.fdot(a[: k + 1], b[k::-1])


def _taylor(series: Callable, y: State, span: tuple[float, float], order: int = 40) -> list[_Piece]:
    """Integrate by Taylor series; the step keeps the last two terms below the tolerance.

    Args:
        series: Takes the coefficient lists of all components and gives a function of k, which is
            called with k = 0, 1, ... and returns coefficient k of each component's derivative.
        y: Initial value.
        span: First and last time, increasing.
        order: Degree of the polynomials.

    Source:
        Jorba and Zou (2005), Experimental Mathematics 14, section 3.
    """
    pieces = []
    t, end = span
    while t < end:
        coefficients = [[value] for value in y]
        rates = series(*coefficients)
        for k in range(order):
            for own, rate in zip(coefficients, rates(k), strict=True):
                own.append(rate / (k + 1))
        size = max(abs(value) for value in y)
        # Terms are not error bounds, and digits are cheap here: hence the 1e-5.
        h = min(
            (TOLERANCE * 1e-5 * size / max(abs(own[k]) for own in coefficients)) ** (mpf(1) / k)
            for k in (order - 1, order)
        )
        later = min(float(t + h), end)
        pieces.append(_Piece(t, later, functools.partial(_horner, coefficients, t)))
        t, y = later, _horner(coefficients, t, mpf(later))
    return pieces


def _horner(coefficients: Sequence[list], start: float, t: mpf) -> State:
    dt = t - start
    return [functools.reduce(lambda sum_, c: sum_ * dt + c, reversed(own)) for own in coefficients]


# Collocation at the s roots of P_s (Gauss) or P_s - P_(s-1) (Radau, right end included), with
# P_k Legendre's polynomials on (-1, 1). On one step, with x from -1 to 1 as t goes from 0 to h,
#     u' = sum_k f_k P_k(x),    u = y + h sum_k f_k Q_k(x),    Q_k(x) = int_(-1)^x P_k / 2.


def _legendre(n: int, x: mpf) -> list:
    values = [mpf(1), x]
    for k in range(1, n):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    return values


def _integrals(s: int, x: mpf) -> list:
    p = _legendre(s, x)
    return [(x + 1) / 2] + [(p[k + 1] - p[k - 1]) / (2 * (2 * k + 1)) for k in range(1, s)]


@dataclasses.dataclass(frozen=True)
class _Tableau:
    """Nodes in (0, 1), stage weights a (s, s), and the map from slopes at the nodes to f."""

    c: list
    a: list[list]
    legendre: list[list]


@functools.cache
def _tableau(s: int, radau: bool) -> _Tableau:
    def root_of(x: mpf) -> mpf:
        p = _legendre(s, x)
        return p[s] - p[s - 1] if radau else p[s]

    guesses = np.polynomial.legendre.legroots([0] * (s - 1) + [-1 if radau else 0, 1])
    x = [mp.findroot(root_of, (mpf(float(g)), mpf(float(g)) + 1e-9)) for g in np.sort(guesses)]
    inverse = mp.inverse(mp.matrix([_legendre(s, node)[:s] for node in x]))
    a = mp.matrix([_integrals(s, node) for node in x]) * inverse
    return _Tableau([(node + 1) / 2 for node in x], a.tolist(), inverse.tolist())


def _collocate(
    field: Field, y: State, span: tuple[float, float], s: int = 20, radau: bool = False
) -> list[_Piece]:
    """Integrate by collocation with s stages; accurate between the steps as well as at them.

    A step is accepted when the last two Legendre coefficients of the slope are below the
    tolerance. Time may run backwards.
    """
    tableau = _tableau(s, radau)
    pieces = []
    t, end = span
    h = (end - t) / 64
    while t != end:
        later = end if abs(end - t) < 1.01 * abs(h) else t + h
        exact = mpf(later) - t
        try:
            stages, slopes = _stages(field, t, y, exact, tableau)
        except ArithmeticError:
            h /= 4
            continue
        slopes = list(zip(*slopes, strict=True))
        f = [[mp.fdot(row, own) for row in tableau.legendre] for own in slopes]
        sizes = [max(abs(value) for value in own) for own in zip(y, *stages, strict=True)]
        error = max(
            float(abs(exact) * max(abs(own[-1]), abs(own[-2])) / size)
            for own, size in zip(f, sizes, strict=True)
        )
        factor = 0.8 * (TOLERANCE / max(error, 1e-300)) ** (1 / s)
        h = float(exact) * min(3.0, max(0.2, factor))
        if error <= TOLERANCE:
            value = functools.partial(_collocation_polynomial, f, y, t, exact)
            pieces.append(_Piece(min(t, later), max(t, later), value))
            t, y = later, value(mpf(later))
    return pieces


def _collocation_polynomial(f: Sequence[list], y: State, start: float, h: mpf, t: mpf) -> State:
    q = _integrals(len(f[0]), 2 * (t - start) / h - 1)
    return [value + h * mp.fdot(own, q) for value, own in zip(y, f, strict=True)]


def _stages(field: Field, t: float, y: State, h: mpf, tableau: _Tableau) -> tuple[list, list]:
    """Stage values and slopes: Y_i = y + h sum_j a_ij field(t + c_j h, Y_j).

    Residuals carry all digits. The linear solves are in float64, so that an iteration gains about
    ten digits instead of doubling them; derivatives of the field are differences over 1e-20.

    Raises:
        ArithmeticError: If Newton's iteration does not converge: the step is too long.
    """
    s, d = len(tableau.c), len(y)
    times = [t + c * h for c in tableau.c]
    stages = [list(y) for _ in times]
    a = np.array(tableau.a, dtype=float) * float(h)
    change = np.inf
    for _ in range(25):
        slopes = [field(*point) for point in zip(times, stages, strict=True)]
        if change > 1e-8:
            jacobian = np.array(
                [_differences(field, *point) for point in zip(times, stages, slopes, strict=True)]
            )
            matrix = np.eye(s * d) - np.einsum("ij,jkl->ikjl", a, jacobian).reshape(s * d, s * d)
            factors = lu_factor(matrix)
        columns = list(zip(*slopes, strict=True))
        residual = [
            [float(y[k] + h * mp.fdot(row, columns[k]) - own[k]) for k in range(d)]
            for row, own in zip(tableau.a, stages, strict=True)
        ]
        update = lu_solve(factors, np.ravel(residual)).reshape(s, d)
        stages = [
            [value + float(step) for value, step in zip(own, steps, strict=True)]
            for own, steps in zip(stages, update, strict=True)
        ]
        sizes = [float(max(abs(own[k]) for own in stages)) for k in range(d)]
        change = np.max(np.max(np.abs(update), axis=0) / np.maximum(sizes, 1e-300))
        if change < 1e-5 * TOLERANCE:
            return stages, [field(*point) for point in zip(times, stages, strict=True)]
        if not change < 1e6:
            break
    raise ArithmeticError("Newton's iteration did not converge")


def _differences(field: Field, t: mpf, y: State, slope: State) -> list[list[float]]:
    """The Jacobian, (component, variable), to about twenty digits."""
    width = mpf(10) ** -20
    columns = []
    for k in range(len(y)):
        moved = field(t, [*y[:k], y[k] + width, *y[k + 1 :]])
        columns.append([float((b - a) / width) for a, b in zip(slope, moved, strict=True)])
    return list(zip(*columns, strict=True))


# Initial value problems. Each field is written twice: as a function and as a recurrence.


def _lotka_volterra(t, y):
    x, p = y
    return [3 * x / 2 - x * p, x * p - 3 * p]


def _lotka_volterra_series(x, p):
    def rates(k):
        eaten = _product(x, p, k)
        return 3 * x[k] / 2 - eaten, eaten - 3 * p[k]

    return rates


def _van_der_pol(mu):
    return lambda t, y: [y[1], mu * (1 - y[0] * y[0]) * y[1] - y[0]]


def _van_der_pol_series(mu):
    def series(x, v):
        square = []

        def rates(k):
            square.append(_product(x, x, k))
            return v[k], mu * (v[k] - _product(square, v, k)) - x[k]

        return rates

    return series


def _pendulum(t, y):
    return [y[1], -mp.sin(y[0])]


def _pendulum_series(theta, omega):
    sine, cosine = [mp.sin(theta[0])], [mp.cos(theta[0])]

    def rates(k):
        if k > 0:
            slope = [j * theta[j] for j in range(1, k + 1)]
            sine.append(mp.fdot(slope, cosine[k - 1 :: -1]) / k)
            cosine.append(-mp.fdot(slope, sine[k - 1 :: -1]) / k)
        return omega[k], -sine[k]

    return rates


def _lorenz(sigma, rho):
    return lambda t, y: [
        sigma * (y[1] - y[0]),
        y[0] * (rho - y[2]) - y[1],
        y[0] * y[1] - 8 * y[2] / 3,
    ]


def _lorenz_series(sigma, rho):
    def series(x, y, z):
        def rates(k):
            return (
                sigma * (y[k] - x[k]),
                rho * x[k] - y[k] - _product(x, z, k),
                _product(x, y, k) - 8 * z[k] / 3,
            )

        return rates

    return series


def _robertson(t, y):
    slow, fast, middle = y[0] / 25, 30_000_000 * y[1] * y[1], 10_000 * y[1] * y[2]
    return [middle - slow, slow - middle - fast, fast]


@dataclasses.dataclass(frozen=True)
class _InitialValueProblem:
    """A problem without closed form; stiff where no series is given."""

    field: Field
    start: tuple[float, ...]
    span: tuple[float, float]
    series: Callable | None = None

    def __call__(self) -> Reference:
        start = [mpf(value) for value in self.start]
        if self.series is None:
            first = _collocate(self.field, start, self.span)
            second = _collocate(self.field, start, self.span, s=17, radau=True)
            source = "collocation in 40 digits, 20 Gauss points against 17 Radau points"
        else:
            first = _taylor(self.series, start, self.span)
            second = _collocate(self.field, start, self.span)
            source = (
                "in 40 digits, Taylor series of order 40 against collocation at 20 Gauss points"
            )
        grid = _grid(self.span, first)
        return _compare(_evaluator(first), _evaluator(second), grid, source)


_INITIAL_VALUE_PROBLEMS = {
    "lotka_volterra": _InitialValueProblem(
        _lotka_volterra, (2.5, 1.25), (0.0, 6.0), _lotka_volterra_series
    ),
    "van_der_pol_1": _InitialValueProblem(
        _van_der_pol(1), (2.0, 0.0), (0.0, 10.0), _van_der_pol_series(1)
    ),
    "van_der_pol_10": _InitialValueProblem(
        _van_der_pol(10), (2.0, 0.0), (0.0, 20.0), _van_der_pol_series(10)
    ),
    "van_der_pol_1000": _InitialValueProblem(_van_der_pol(1000), (2.0, 0.0), (0.0, 2000.0)),
    "pendulum": _InitialValueProblem(_pendulum, (1.0, 0.0), (0.0, 20.0), _pendulum_series),
    "lorenz_short": _InitialValueProblem(
        _lorenz(10, 15), (-8.0, 7.0, 27.0), (0.0, 3.0), _lorenz_series(10, 15)
    ),
    "lorenz_long": _InitialValueProblem(
        _lorenz(3, 28), (1.0, 1.0, 1.0), (0.0, 20.0), _lorenz_series(3, 28)
    ),
    "robertson": _InitialValueProblem(_robertson, (1.0, 0.0, 0.0), (0.0, 1e5)),
}


# Problems with closed forms. Each function returns the closed form and the field; boundary value
# problems are SciPy's own (scipy/integrate/tests/test_bvp.py) unless they say otherwise.


def _decay():
    return lambda t: [mp.exp(-t)], lambda t, y: [-y[0]]


def _oscillator():
    return lambda t: [mp.cos(t), -mp.sin(t)], lambda t, y: [y[1], -y[0]]


def _exponential():
    """y(0) = 1, y(1) = 0."""
    scale = 1 - mp.exp(-2)

    def exact(t):
        down, up = mp.exp(-t), mp.exp(t - 2)
        return [(down - up) / scale, -(down + up) / scale]

    return exact, lambda t, y: [y[1], y[0]]


def _sturm_liouville():
    """y1'' = -p^2 y1 with y1(0) = y1(pi) = 0 and y1'(0) = p, at the parameter p = 1."""
    return lambda t: [mp.sin(t), mp.cos(t)], lambda t, y: [y[1], -y[0]]


def _emden():
    """The term -2 y2 / t is SciPy's S = [[0, 0], [0, -2]]; y2(0) = 0, y1(1) = sqrt(3/4)."""

    def exact(t):
        root = 1 / mp.sqrt(1 + t * t / 3)
        return [root, -t / 3 * root**3]

    return exact, lambda t, y: [y[1], -2 * y[1] / t - y[0] ** 5]


def _shock():
    """The layer has eps = 1e-3; y(-1) = -2, y(1) = 0."""
    width = mp.sqrt(mpf(2) / 1000)
    scale = mp.erf(1 / width)

    def exact(t):
        bell = 2 / mp.sqrt(mp.pi) / width * mp.exp(-((t / width) ** 2))
        return [
            mp.cos(mp.pi * t) + mp.erf(t / width) / scale,
            bell / scale - mp.pi * mp.sin(mp.pi * t),
        ]

    def field(t, y):
        forcing = mp.pi**2 * mp.cos(mp.pi * t) / 1000 + mp.pi * t * mp.sin(mp.pi * t)
        return [y[1], -1000 * (t * y[1] + forcing)]

    return exact, field


def _large():
    """Thirty copies of y1' = y2, y2' = 0 with y1(0) = 0 and y1(1) = 1."""
    return lambda t: [t, mpf(1)] * 30, lambda t, y: [
        v for k in range(30) for v in (y[2 * k + 1], 0)
    ]


def _boundary_layer():
    """-eps y'' + y' = 1 with y(0) = y(1) = 0 and eps = 1e-3. Not SciPy's."""
    scale = 1 - mp.exp(-1000)

    def exact(t):
        layer = mp.exp(1000 * (t - 1))
        return [t - (layer - mp.exp(-1000)) / scale, 1 - 1000 * layer / scale]

    return exact, lambda t, y: [y[1], 1000 * (y[1] - 1)]


def _bratu(guess):
    """Bratu's y'' + exp(y) = 0, y(0) = y(1) = 0; the guess picks the branch. Not SciPy's."""
    theta = mp.findroot(lambda x: x - mp.sqrt(2) * mp.cosh(x / 4), guess)

    def exact(t):
        s = theta * (t - mpf(1) / 2) / 2
        return [2 * mp.log(mp.cosh(theta / 4) / mp.cosh(s)), -theta * mp.tanh(s)]

    return exact, lambda t, y: [y[1], -mp.exp(y[0])]


@dataclasses.dataclass(frozen=True)
class _ClosedForm:
    """A closed form on `span`, compared with Gauss collocation that starts on it at `origin`."""

    build: Callable[[], tuple[Callable, Field]]
    span: tuple[float, float]
    origin: float = 0.0

    def __call__(self) -> Reference:
        exact, field = self.build()
        pieces = []
        for end in self.span:
            if end != self.origin:
                pieces += _collocate(field, exact(mpf(self.origin)), (self.origin, end))
        source = "in 40 digits, closed form against collocation at 20 Gauss points"
        return _compare(exact, _evaluator(pieces), _grid(self.span, pieces), source)


def _nonlinear_boundary() -> Reference:
    """SciPy's y'' = 0 on (0, 0.1) with Butler-Volmer kinetics at both ends: y = a + b t.

    Two unknowns by Newton's method against one unknown by bisection. The currents are written as
    2 i0 sinh(f h), which is SciPy's difference of exponentials.
    """
    kappa, anode, cathode = mpf("1.64"), mpf("0.01"), mpf("1e-4")
    voltage, f, length = mpf("0.5"), mpf("38.9"), mpf("0.1")

    def residuals(a, b):
        right = 2 * cathode * mp.sinh(f * (voltage - (a + length * b) - 1))
        return [2 * anode * mp.sinh(-f * a) + kappa * b, right - kappa * b]

    def slope(a):
        return 2 * anode * mp.sinh(f * a) / kappa

    def right_end(a):
        return residuals(a, slope(a))[1]

    a, b = mp.findroot(residuals, (mpf("-0.13"), mpf("-1.1")))
    other = mp.findroot(right_end, (mpf("-0.2"), mpf("-0.1")), solver="bisect", maxsteps=200)
    return _compare(
        lambda t: [a + b * t, b],
        lambda t: [other + slope(other) * t, slope(other)],
        np.linspace(0.0, 0.1, UNIFORM),
        "in 40 digits, Newton in two unknowns against bisection in one",
    )


def _mathieu(q: int = 5, n: int = 40) -> Reference:
    """Galerkin in the cosines against shooting; x = pi t keeps the right end exact."""
    matrix = mp.diag([mpf(k) ** 2 for k in range(n)])
    matrix[1, 1] += q
    for k in range(n - 2):
        matrix[k, k + 2] = matrix[k + 2, k] = q * (mp.sqrt(2) if k == 0 else 1)
    values = list(mp.eigsy(matrix, eigvals_only=True))[:3]

    def end_slope(lam):
        def field(t, y):
            return [y[1], mp.pi**2 * (2 * q * mp.cos(2 * mp.pi * t) - lam) * y[0]]

        return _evaluator(_collocate(field, [mpf(1), mpf(0)], (0.0, 1.0)))(mpf(1))[1]

    guesses = [mpf(float(mathieu_a(k, q))) for k in range(3)]
    shot = [mp.findroot(end_slope, (g, g + 1e-6), tol=1e-40, verify=False) for g in guesses]
    source = "in 40 digits, Galerkin with 40 cosines against shooting with collocation"
    return _compare(lambda t: values, lambda t: shot, np.zeros(1), source)


_COMPUTATIONS: dict[str, Callable[[], Reference]] = {
    "decay": _ClosedForm(_decay, (0.0, 5.0)),
    "oscillator": _ClosedForm(_oscillator, (0.0, 10.0)),
    **_INITIAL_VALUE_PROBLEMS,
    "exponential": _ClosedForm(_exponential, (0.0, 1.0)),
    "sturm_liouville": _ClosedForm(_sturm_liouville, (0.0, float(np.pi))),
    "emden": _ClosedForm(_emden, (0.0, 1.0)),
    "shock": _ClosedForm(_shock, (-1.0, 1.0)),
    "nonlinear_boundary": _nonlinear_boundary,
    "large": _ClosedForm(_large, (0.0, 1.0)),
    "boundary_layer": _ClosedForm(_boundary_layer, (0.0, 1.0), origin=1.0),
    "bratu_lower": _ClosedForm(functools.partial(_bratu, 1.5), (0.0, 1.0)),
    "bratu_upper": _ClosedForm(functools.partial(_bratu, 11), (0.0, 1.0)),
    "mathieu": _mathieu,
}

# End values others have published, as a check of whole computations that shares nothing with them.
# van der Pol: vdpolm.F of the Test Set for IVP Solvers (Bari), the same start and time unscaled,
# from Radau at tolerance 1.1e-18. Robertson: Hairer's value at 1e5, as micm's tests quote it.
_PUBLISHED = {
    "van_der_pol_1000": (0.1706167732170469e1, -0.8928097010248125e-3),
    "robertson": (0.1786592114209946e-1, 0.7274751468436319e-7, 0.9821340061103859),
}


def _outside_check(name: str, ref: Reference) -> str:
    """Distance to something computed elsewhere: published end values, or SciPy's integrators."""
    if name in _PUBLISHED:
        return f"published end {np.max(np.abs(ref.y[-1] / _PUBLISHED[name] - 1)):.0e}"
    if name == "mathieu":
        return f"scipy.special {np.max(np.abs(ref.y[0] / mathieu_a(range(3), 5) - 1)):.0e}"
    if name in _INITIAL_VALUE_PROBLEMS:
        problem = _INITIAL_VALUE_PROBLEMS[name]
        found = solve_ivp(
            lambda t, y: np.array(problem.field(t, y.tolist()), dtype=float),
            problem.span,
            problem.start,
            method="DOP853",
            t_eval=ref.t,
            rtol=1e-13,
            atol=1e-15,
        )
        return f"DOP853 at 1e-13 {relative_error(found.y.T, ref):.0e}"
    return ""


def main(names: Sequence[str]) -> None:
    """Compute or read references and print a table of them."""
    print(f"{'name':20}{'n':>6}{'d':>4}{'disagreement':>14}{'seconds':>9}  outside check")
    for name in names or _COMPUTATIONS:
        start = time.perf_counter()
        ref = reference(name)
        seconds = time.perf_counter() - start
        n, d = ref.y.shape
        check = _outside_check(name, ref)
        print(f"{name:20}{n:6}{d:4}{ref.disagreement:14.1e}{seconds:9.1f}  {check}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
