"""Any optax transformation as a member's optimizer, with its learning rate as data."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from evolute import limits
from evolute.errors import UserError, closest
from evolute.networks import MLP, Layer
from evolute.optimizers.base import Contained, Optimizer, Rates, Tape, all_finite, keep_if, nothing_contained, squares_finite
from evolute.options import DECAY, FINITE, SWITCH, Rule, Setting, checked, declared, not_negative, positive, setting, shown

# Transformations whose `update` needs the loss function or its value, which a learner step does not hand out.
_NEED_THE_LOSS = {"lbfgs", "polyak_sgd", "sam", "momo", "momo_adam", "mechanize", "cocob", "reduce_on_plateau"}
# rprop reads its learning rate only when it starts; noisy_sgd would draw the same noise for every member.
_NOT_FOR_POPULATIONS = {"rprop", "noisy_sgd"}
# With optax's own arguments these compute nothing infinite from gradients with finite squares: Adam divides a mean of gradients
# by the root of a mean of their squares, plus an epsilon.
_FINITE_BY_ITSELF = {"adam"}


# What optax's arguments must be, by their name (muon's begin with "adam_", too), unless optax's own default says otherwise.
_RULES: dict[str, tuple[Rule, str]] = {
    **dict.fromkeys(("b1", "b2", "b3", "beta", "beta3", "decay", "momentum", "rho"), (DECAY, "0.9")),
    **dict.fromkeys(("eps", "eps_root", "min_norm"), (not_negative(), "1e-8")),
    **dict.fromkeys(("weight_decay", "weight_decay_rate"), (not_negative(), "0.01")),
    "betas": (Rule(lambda x: all(map(DECAY.holds, x)), f"numbers {DECAY.words}"), "0.9,0.999"),
    "learning_rate": (positive(), "0.001"),
}


@declared
class FirstOrderOptions:
    """Options of an optax optimizer: its learning rate, and any other argument of optax's function by its own name."""

    learning_rate: float = setting("Step size.", positive(), "0.001")
    arguments: Mapping[str, Any] = setting(
        "Any other argument of optax's function, by its own name.", Rule(lambda x: True, "checked by its name"), "b1=0.9"
    )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "FirstOrderOptions":
        """Split options by name into the learning rate and optax's other arguments."""
        return cls(float(options["learning_rate"]), {k: v for k, v in options.items() if k != "learning_rate"})


def _shape(*axes: int) -> Any:
    return jax.ShapeDtypeStruct(axes, jnp.float32)


# A tiny network and a learning rate. Only shapes: computing would start JAX before its devices are chosen.
_TINY = ((Layer(_shape(3, 2), _shape(2)), Layer(_shape(2, 1), _shape(1))), _shape())


# Optimizers and options that optax has taken, and arguments that were found to change something with the others: asking takes
# tens of milliseconds, and making a run asks for every network.
_SOUND: set[str] = set()
_TELLING: set[str] = set()


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


def resolve(name: str, role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by name as their types; raises UserError for a wrong one, and for one that changes nothing."""
    known, where = arguments_of(name), f"optimizers.{name}.{role}"
    values: dict[str, Any] = {}
    for argument, value in given.items():
        if argument != "learning_rate" and argument not in known:
            raise UserError(
                f"optimizers.{name} has no option {argument!r}{closest(argument, known)}; "
                f"optax.{name} takes {', '.join(['learning_rate', *known])}."
            )
        default = None if argument == "learning_rate" else known[argument]
        values[argument] = _argument(f"{where}.{argument}", value, argument.removeprefix("adam_"), default)
    options = FirstOrderOptions.of(values)
    check(name, options)
    for argument, value in options.arguments.items():
        if (asked := f"{name} {argument} {options.arguments}") in _TELLING:
            continue
        others = {other: its for other, its in options.arguments.items() if other != argument}
        if not _alike(value, known[argument]) and _program(name, options.arguments) == _program(name, others):
            raise UserError(f"{where}.{argument} is {shown(value)}, which changes nothing with these options; leave it out.")
        _TELLING.add(asked)
    return values


def _argument(where: str, value: Any, name: str, default: Any) -> Any:
    """Return the value of an argument of optax as the type of its default, or raise UserError."""
    hint = type(default) if type(default) in (bool, int, float, str, tuple) else Any
    rule, example = _RULES.get(name, (None, shown(default)))
    if rule is not None and (default is None or rule.holds(default)):
        hint = tuple[float, ...] if hint is tuple else float
    elif hint is tuple:
        # Not all of these are of numbers alone; optax judges them below.
        rule = Rule(lambda x: type(x) in (list, tuple) and len(x) == len(default), f"a list of {len(default)}")
        return tuple(checked(where, value, Any, Setting("", rule, example)))
    else:
        rule = {bool: SWITCH, int: not_negative(limits.UPDATES), float: FINITE, str: Rule(lambda x: type(x) is str, "text")}.get(
            hint, Rule(lambda x: not isinstance(x, float) or FINITE.holds(x), FINITE.words)
        )
    return checked(where, value, hint, Setting("", rule, example))


def _alike(value: Any, default: Any) -> bool:
    """Return whether a value is its default's in single precision."""
    numbers = type(value) in (int, float) and type(default) in (int, float)
    return np.float32(value) == np.float32(default) if numbers else value == default


def check(name: str, options: FirstOrderOptions) -> None:
    """Raise UserError where optax refuses the options, or cannot run with a learning rate that is data."""
    if (known := f"{name} {options}") in _SOUND:
        return
    optimizer = first_order(name, options)

    def one_step(mlp: MLP, rate: jax.Array) -> MLP:
        rates = Rates(rate, jnp.zeros(()))
        return optimizer.update(mlp, optimizer.init(mlp), mlp, rates, None, jnp.zeros((), jnp.int32))[0]  # type: ignore[arg-type]

    try:
        jax.eval_shape(one_step, *_TINY)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the optimizer {name!r} cannot be used with these options: optax says {reason!r}; "
            "change [optimizers." + name + "] or choose another kind."
        ) from error
    _SOUND.add(known)


def _program(name: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what optax's transformation computes, in a form that can be compared."""
    factory, (mlp, rate) = functools.partial(transformations()[name], **arguments), _TINY
    with jax.numpy_dtype_promotion("standard"):
        start = jax.make_jaxpr(lambda p: factory(learning_rate=1.0).init(p))(mlp)
        state = jax.eval_shape(factory(learning_rate=1.0).init, mlp)
        step = jax.make_jaxpr(lambda g, s, p, lr: factory(learning_rate=lr).update(g, s, p))(mlp, state, mlp, rate)
    return str(start), str(step), [np.asarray(constant).tobytes() for constant in (*start.consts, *step.consts)]
