"""Any optax transformation as a member's optimizer, with its learning rate as data."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from evolute.errors import UserError, closest
from evolute.networks import MLP, Layer
from evolute.optimizers.base import Contained, Optimizer, Rates, Tape, all_finite, keep_if, nothing_contained, squares_finite

# Transformations whose `update` needs the loss function or its value, which a learner step does not hand out.
_NEED_THE_LOSS = {"lbfgs", "polyak_sgd", "sam", "momo", "momo_adam", "mechanize", "cocob", "reduce_on_plateau"}
# rprop reads its learning rate only when it starts; noisy_sgd would draw the same noise for every member.
_NOT_FOR_POPULATIONS = {"rprop", "noisy_sgd"}
# With optax's own arguments these compute nothing infinite from gradients with finite squares: Adam divides a mean of gradients
# by the root of a mean of their squares, plus an epsilon.
_FINITE_BY_ITSELF = {"adam"}


@dataclass(frozen=True)
class FirstOrderOptions:
    """Options of an optax optimizer: its learning rate, and any other argument of optax's function by its own name."""

    learning_rate: float
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "FirstOrderOptions":
        """Split options by name into the learning rate and optax's other arguments."""
        return cls(float(options["learning_rate"]), {k: v for k, v in options.items() if k != "learning_rate"})


@functools.cache
def transformations() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Return every optimizer of optax and optax.contrib that takes a learning rate, by optax's name."""
    found = {}
    for module in (optax.contrib, optax):
        for name, factory in vars(module).items():
            if name in _NEED_THE_LOSS | _NOT_FOR_POPULATIONS or not inspect.isfunction(factory):
                continue
            # scale_by_*: parts of optimizers, some without the minus sign.
            if name.startswith(("_", "scale_by_")):
                continue
            if "learning_rate" in inspect.signature(factory).parameters:
                found[name] = factory
    return found


def arguments_of(name: str) -> dict[str, Any]:
    """Return the arguments that optax's function takes beside its learning rate, with their defaults."""
    parameters = inspect.signature(transformations()[name]).parameters
    return {k: p.default for k, p in parameters.items() if k != "learning_rate"}


def first_order(name: str, options: FirstOrderOptions) -> Optimizer:
    """Return optax's transformation `name` as an optimizer.

    The transformation is built anew inside each (traced) update around the member's own learning rate. optax's transformations
    keep everything else in their state, so this is the same algorithm, with the rate as data.
    """
    factory = functools.partial(transformations()[name], **options.arguments)

    def init(parameters: MLP) -> optax.OptState:
        return factory(learning_rate=options.learning_rate).init(parameters)

    def advance(gradients: MLP, state: optax.OptState, parameters: MLP, rates: Rates) -> tuple[MLP, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with real numbers
            updates, state = factory(learning_rate=rates.learning_rate).update(gradients, state, parameters)
        return jax.tree.map(jnp.add, parameters, updates), state

    def update(
        gradients: MLP, state: optax.OptState, parameters: MLP, rates: Rates, tape: Tape, step: jax.Array
    ) -> tuple[MLP, optax.OptState, Contained]:
        del tape, step
        old = (parameters, state)
        # Squares, because a second moment overflows long before the update that it scales. A branch on what comes in, because a
        # test of what comes out costs as many passes over parameters and state as the step itself.
        finite = squares_finite((gradients, rates.learning_rate))
        new = jax.lax.cond(finite, lambda: advance(gradients, state, parameters, rates), lambda: old)
        if name not in _FINITE_BY_ITSELF or options.arguments:
            sound = all_finite(new)
            new, finite = keep_if(sound, new, old), finite & sound
        return *new, nothing_contained()._replace(steps=jnp.float32(~finite))

    return Optimizer(init, update)


def check(name: str, options: FirstOrderOptions) -> None:
    """Raise UserError where optax refuses the options, or cannot run with a learning rate that is data."""
    known = arguments_of(name)
    for argument in options.arguments:
        if argument not in known:
            raise UserError(
                f"optimizers.{name} has no option {argument!r}{closest(argument, known)}; "
                f"optax.{name} takes {', '.join(['learning_rate', *known])}."
            )

    # Try it on the shapes of a tiny network. Only shapes: computing would start JAX before its devices are chosen.
    def shape(*axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, jnp.float32)

    mlp = (Layer(shape(3, 2), shape(2)), Layer(shape(2, 1), shape(1)))
    optimizer = first_order(name, options)

    def one_step(mlp: MLP, rate: jax.Array) -> MLP:
        rates = Rates(rate, jnp.zeros(()))
        return optimizer.update(mlp, optimizer.init(mlp), mlp, rates, None, jnp.zeros((), jnp.int32))[0]  # type: ignore[arg-type]

    try:
        jax.eval_shape(one_step, mlp, shape())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the optimizer {name!r} cannot be used with these options: optax says {reason!r}; "
            "change [optimizers." + name + "] or choose another kind."
        ) from error
