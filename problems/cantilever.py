"""A cantilever of elastic material, bent by a load at its end: two displacements.

The beam is held at x = 0; a shear load, a parabola over its height, acts at x = L, and its sides
are free. Lengths are in units of its height, stresses in units of Young's modulus; the stress is
plane. Displacements at the clamped end are those of the closed form, since a section that is held
rigidly warps.

Source: Timoshenko and Goodier, Theory of Elasticity (1970), section 21; in this form Augarde and
Deeks, Finite Elem. Anal. Des. 44 (2008) 595.
"""

import jax
import jax.numpy as jnp

import constrainednn as cx

LENGTH, HEIGHT, POISSON = 4.0, 1.0, 0.3
INERTIA = HEIGHT**3 / 12


def problem(load=1e-3):
    def exact(p):
        x, y = p
        along = (6 * LENGTH - 3 * x) * x + (2 + POISSON) * (y**2 - HEIGHT**2 / 4)
        bent = 3 * POISSON * y**2 * (LENGTH - x) + (4 + 5 * POISSON) * HEIGHT**2 * x / 4
        across = bent + (3 * LENGTH - x) * x**2
        return load / (6 * INERTIA) * jnp.stack([y * along, -across])

    def stress(u, p):
        strain = jax.jacfwd(u)(p)
        strain = (strain + strain.T) / 2
        spread = POISSON * jnp.trace(strain) * jnp.eye(2)
        return ((1 - POISSON) * strain + spread) / (1 - POISSON**2)

    def equilibrium(u, p):
        return jnp.trace(jax.jacfwd(lambda x: stress(u, x))(p), axis1=1, axis2=2)

    def held(u, p):
        return u(p) - exact(p)

    def free(u, p, n):
        return stress(u, p) @ n

    def loaded(u, p, n):
        shear = -load / (2 * INERTIA) * (HEIGHT**2 / 4 - p[1] ** 2)
        return stress(u, p) @ n - jnp.stack([jnp.zeros(()), shear])

    return cx.pde(
        equilibrium,
        over=cx.Box([0.0, -HEIGHT / 2], [LENGTH, HEIGHT / 2]),
        boundary={"left": held, "right": loaded, "bottom": free, "top": free},
        guess=jnp.zeros(2),
        reference=exact,
    )
