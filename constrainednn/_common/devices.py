"""Batches over all local devices: what JAX sees of one machine, such as several GPUs."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

_ALONG = PartitionSpec("batch")


def device_count() -> int:
    """How many devices a batch is shared by."""
    return jax.local_device_count()


def shared_out(batch: Float[np.ndarray, "n ..."]) -> Float[Array, "n ..."]:
    """A batch whose length is a multiple of the number of devices, a part of it on each."""
    return jax.device_put(batch, NamedSharding(_devices(), _ALONG))


def on_each_device(
    fn: Callable[[Float[Array, "k ..."]], Float[Array, "k ..."]],
) -> Callable[[Float[Array, "n ..."]], Float[Array, "n ..."]]:
    """A function of a batch that every device computes for its own part."""
    return jax.jit(jax.shard_map(fn, mesh=_devices(), in_specs=_ALONG, out_specs=_ALONG))


@functools.cache
def _devices() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("batch",))
