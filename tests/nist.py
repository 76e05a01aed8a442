"""NIST's 27 reference problems of nonlinear regression, each from both starts.

Source: NIST/ITL, Statistical Reference Datasets, Nonlinear Regression,
https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml: models, starts, certified parameters and
sums of squares, which are given to eleven digits.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from nist_data import EVEN, X, Y


class Fit(NamedTuple):
    """A model and where its fit begins and ends.

    Attributes:
        name: Of the data set.
        model: From parameters and x to y.
        far: NIST's first start.
        near: Its second.
        certified: Parameters of the minimum.
        squares: Sum of squares there.
    """

    name: str
    model: Callable
    far: tuple[float, ...]
    near: tuple[float, ...]
    certified: tuple[float, ...]
    squares: float

    def residual(self, b):
        """Model minus data."""
        x, y = data(self.name)
        return self.model(b, x) - y


def data(name):
    """x, in rows where there are two, and y."""
    shared = "Misra1a" if name.startswith("Misra") else name
    y = np.array(Y[shared].split(), float)
    if name in EVEN:
        first, step = EVEN[name]
        return first + step * np.arange(y.size), y
    x = np.array(X[shared].split(), float).reshape(y.size, -1).T
    return (x if len(x) > 1 else x[0]), np.log(y) if name == "Nelson" else y


def saturation(b, x):
    return b[0] * (1 - jnp.exp(-b[1] * x))


def inverse_square(b, x):
    return b[0] * (1 - (1 + b[1] * x / 2) ** -2)


def inverse_root(b, x):
    return b[0] * (1 - (1 + 2 * b[1] * x) ** -0.5)


def hyperbola(b, x):
    return b[0] * b[1] * x / (1 + b[1] * x)


def damped_hyperbola(b, x):
    return jnp.exp(-b[0] * x) / (b[1] + b[2] * x)


def power(b, x):
    return b[0] * x ** b[1]


def shifted_power(b, x):
    return b[0] * (b[1] + x) ** (-1 / b[2])


def three_cycles(b, x):
    yearly = b[1] * jnp.cos(2 * jnp.pi * x / 12) + b[2] * jnp.sin(2 * jnp.pi * x / 12)
    other = b[4] * jnp.cos(2 * jnp.pi * x / b[3]) + b[5] * jnp.sin(2 * jnp.pi * x / b[3])
    third = b[7] * jnp.cos(2 * jnp.pi * x / b[6]) + b[8] * jnp.sin(2 * jnp.pi * x / b[6])
    return b[0] + yearly + other + third


def peak(b, x):
    return b[0] / b[1] * jnp.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def two_peaks(b, x):
    peaks = [b[k] * jnp.exp(-(((x - b[k + 1]) / b[k + 2]) ** 2)) for k in (2, 5)]
    return b[0] * jnp.exp(-b[1] * x) + peaks[0] + peaks[1]


def cubic_by_cubic(b, x):
    above = b[0] + x * (b[1] + x * (b[2] + x * b[3]))
    return above / (1 + x * (b[4] + x * (b[5] + x * b[6])))


def quadratic_by_quadratic(b, x):
    return (b[0] + x * (b[1] + x * b[2])) / (1 + x * (b[3] + x * b[4]))


def three_decays(b, x):
    return sum(b[k] * jnp.exp(-b[k + 1] * x) for k in (0, 2, 4))


def two_decays(b, x):
    return b[0] + b[1] * jnp.exp(-x * b[3]) + b[2] * jnp.exp(-x * b[4])


def enzyme(b, x):
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def thermistor(b, x):
    return b[0] * jnp.exp(b[1] / (x + b[2]))


def breakdown(b, x):
    return b[0] - b[1] * x[0] * jnp.exp(-b[2] * x[1])


def logistic(b, x):
    return b[0] / (1 + jnp.exp(b[1] - b[2] * x))


def richards(b, x):
    return b[0] / (1 + jnp.exp(b[1] - b[2] * x)) ** (1 / b[3])


def quantum_defects(b, x):
    return b[0] - b[1] * x - jnp.arctan(b[2] / (x - b[3])) / jnp.pi


# fmt: off
_ALL = [
    Fit("Bennett5", shifted_power, (-2000, 50, 0.8), (-1500, 45, 0.85), (-2523.5058043,
        46.736564644, 0.93218483193), 0.00052404744073),
    Fit("BoxBOD", saturation, (1, 1), (100, 0.75), (213.80940889, 0.54723748542),
        1168.0088766),
    Fit("Chwirut1", damped_hyperbola, (0.1, 0.01, 0.02), (0.15, 0.008, 0.01),
        (0.1902781837, 0.0061314004477, 0.010530908399), 2384.4771393),
    Fit("Chwirut2", damped_hyperbola, (0.1, 0.01, 0.02), (0.15, 0.008, 0.01),
        (0.16657666537, 0.0051653291286, 0.012150007096), 513.04802941),
    Fit("DanWood", power, (1, 5), (0.7, 4), (0.76886226176, 3.8604055871),
        0.0043173084083),
    Fit("ENSO", three_cycles, (11, 3, 0.5, 40, -0.7, -1.3, 25, -0.3, 1.4), (10, 3, 0.5,
        44, -1.5, 0.5, 26, -0.1, 1.5), (10.510749193, 3.0762128085, 0.53280138227,
        44.3110887, -1.6231428586, 0.52554493756, 26.88761444, 0.21232288488,
        1.4966870418), 788.53978668),
    Fit("Eckerle4", peak, (1, 10, 500), (1.5, 5, 450), (1.5543827178, 4.0888321754,
        451.54121844), 0.0014635887487),
    Fit("Gauss1", two_peaks, (97, 0.009, 100, 65, 20, 70, 178, 16.5), (94, 0.0105, 99, 63,
        25, 71, 180, 20), (98.778210871, 0.010497276517, 100.48990633, 67.481111276,
        23.12977336, 71.994503004, 178.99805021, 18.389389025), 1315.8222432),
    Fit("Gauss2", two_peaks, (96, 0.009, 103, 106, 18, 72, 151, 18), (98, 0.0105, 103,
        105, 20, 73, 150, 20), (99.018328406, 0.010994945399, 101.88022528, 107.03095519,
        23.578584029, 72.045589471, 153.27010194, 19.525972636), 1247.5282092),
    Fit("Gauss3", two_peaks, (94.9, 0.009, 90.1, 113, 20, 73.8, 140, 20), (96, 0.0096, 80,
        110, 25, 74, 139, 25), (98.94036897, 0.010945879335, 100.69553078, 111.63619459,
        23.300500029, 73.705031418, 147.76164251, 19.66822123), 1244.484636),
    Fit("Hahn1", cubic_by_cubic, (10, -1, 0.05, -1e-05, -0.05, 0.001, -1e-06), (1, -0.1,
        0.005, -1e-06, -0.005, 0.0001, -1e-07), (1.0776351733, -0.12269296921,
        0.004086375061, -1.4262662514e-06, -0.0057609940901, 0.00024053735503,
        -1.2314450199e-07), 1.5324382854),
    Fit("Kirby2", quadratic_by_quadratic, (2, -0.1, 0.003, -0.001, 1e-05), (1.5, -0.15,
        0.0025, -0.0015, 2e-05), (1.6745063063, -0.13927397867, 0.0025961181191,
        -0.001724181187, 2.1664802578e-05), 3.9050739624),
    Fit("Lanczos1", three_decays, (1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4,
        6.3), (0.095100000027, 1.0000000001, 0.86070000013, 3.0000000002, 1.5575999998,
        5.0000000001), 1.4307867721e-25),
    Fit("Lanczos2", three_decays, (1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4,
        6.3), (0.096251029939, 1.0057332849, 0.86424689056, 3.0078283915, 1.5529016879,
        5.00287981), 2.2299428125e-11),
    Fit("Lanczos3", three_decays, (1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4,
        6.3), (0.086816414977, 0.95498101505, 0.84400777463, 2.9515951832, 1.5825685901,
        4.9863565084), 1.6117193594e-08),
    Fit("MGH09", enzyme, (25, 39, 41.5, 39), (0.25, 0.39, 0.415, 0.39), (0.19280693458,
        0.19128232873, 0.12305650693, 0.13606233068), 0.00030750560385),
    Fit("MGH10", thermistor, (2, 400000, 25000), (0.02, 4000, 250), (0.005609636471,
        6181.3463463, 345.22363462), 87.945855171),
    Fit("MGH17", two_decays, (50, 150, -100, 1, 2), (0.5, 1.5, -1, 0.01, 0.02),
        (0.37541005211, 1.9358469127, -1.4646871366, 0.01286753464, 0.022122699662),
        5.4648946975e-05),
    Fit("Misra1a", saturation, (500, 0.0001), (250, 0.0005), (238.94212918,
        0.00055015643181), 0.12455138894),
    Fit("Misra1b", inverse_square, (500, 0.0001), (300, 0.0002), (337.99746163,
        0.00039039091287), 0.075464681533),
    Fit("Misra1c", inverse_root, (500, 0.0001), (600, 0.0002), (636.42725809,
        0.00020813627256), 0.040966836971),
    Fit("Misra1d", hyperbola, (500, 0.0001), (450, 0.0003), (437.36970754,
        0.00030227324449), 0.056419295283),
    Fit("Nelson", breakdown, (2, 0.0001, -0.01), (2.5, 5e-09, -0.05), (2.5906836021,
        5.6177717026e-09, -0.057701013174), 3.7976833176),
    Fit("Rat42", logistic, (100, 1, 0.1), (75, 2.5, 0.07), (72.462237576, 2.6180768402,
        0.067359200066), 8.0565229338),
    Fit("Rat43", richards, (100, 10, 1, 1), (700, 5, 0.75, 1.3), (699.6415127,
        5.2771253025, 0.75962938329, 1.2792483859), 8786.404908),
    Fit("Roszman1", quantum_defects, (0.1, -1e-05, 1000, -100), (0.2, -5e-06, 1200, -150),
        (0.20196866396, -6.1953516256e-06, 1204.4556708, -181.34269537),
        0.00049484847331),
    Fit("Thurber", cubic_by_cubic, (1000, 1000, 400, 40, 0.7, 0.3, 0.03), (1300, 1500,
        500, 75, 1, 0.4, 0.05), (1288.13968, 1491.0792535, 583.23836877, 75.416644291,
        0.96629502864, 0.39797285797, 0.049727297349), 5642.7082397),
]
# fmt: on
FITS = {fit.name: fit for fit in _ALL}
