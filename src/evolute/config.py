"""What a run is: one frozen record, its presets, its TOML form; a mistake is one sentence with value, rule and fix."""

import dataclasses
import itertools
import math
import tomllib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from evolute import limits, optimizers
from evolute.errors import UserError, closest
from evolute.files import read_at_most, reason
from evolute.hyperparameters import BOUNDS, Hyperparameters

# Stands for "the preset's value" until a Run is made.
_PRESET: Any = None


def _option(help: str, default: Any = _PRESET) -> Any:
    metadata = {"help": help}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Run:
    """Everything that decides a run. A Run that exists is complete and valid; making one raises UserError otherwise.

    Whatever is left out comes from the preset, which may look at the environment.
    """

    env: str = _option("Gymnasium id, such as HalfCheetah-v4 or my_package:MyEnv-v0.")
    mix: dict[str, int] = _option(
        "Slots of each optimizer kind, such as adam=6 kfac=2. ACTOR/CRITIC names two optimizers: adam/kfac=2.",
        {"adam": 1},
    )
    steps: int = _option("Environment steps of each member.")
    seed: int = _option("Seed of everything random in the run.", 0)
    preset: str = _option("Where defaults come from: paper, sb3 or cleanrl.", "paper")

    # TD3
    actor_layers: tuple[int, ...] = _option("Hidden units of each layer of the actor.")
    critic_layers: tuple[int, ...] = _option("Hidden units of each layer of the two critics.")
    discount: float = _option("Discount of future rewards, per step.")
    tau: float = _option("Fraction by which targets move towards their networks, per actor update.")
    policy_delay: int = _option("Critic updates per update of the actor and the targets.")
    target_noise: float = _option("Standard deviation of the noise on target actions, in units of [-1, 1].")
    target_noise_clip: float = _option("Largest noise on target actions, in units of [-1, 1].")
    exploration_noise: float = _option("Standard deviation of the noise on training actions, in units of [-1, 1].")
    warm_up_noise: bool = _option("Add exploration noise to the uniform actions before learning starts, as SB3 does.")
    learning_starts: int = _option("Environment steps of uniformly random actions before the first update.")
    buffer_size: int = _option("Transitions in each member's replay buffer.")
    batch_size: int = _option("Transitions in a batch.")
    optimizers: dict[str, Any] = _option("Options by optimizer, such as kfac.damping=0.1 or kfac.actor.learning_rate=0.03.", {})

    # population-based training
    interval: int = _option("Environment steps of a member between two evolutions.", 10_000)
    steps_per_interval: dict[str, int] = _option("Fewer steps per interval for some kinds, such as kfac=3000.", {})
    shrink: str = _option(
        "What fewer steps per interval means: 'both' environment and gradient steps, or 'gradient' steps alone.", "both"
    )
    truncation: float = _option("Fraction of the population that is replaced at an evolution, at most one half.", 0.2)
    factors: tuple[float, ...] = _option("Factors by which exploration multiplies a hyperparameter.", (0.8, 1.2))
    perturb: tuple[str, ...] = _option(
        "Hyperparameters that exploration perturbs.",
        ("batch_size", "actor_learning_rate", "critic_learning_rate", "actor_damping", "critic_damping"),
    )
    bounds: dict[str, Any] = _option("Least and largest value of a perturbed hyperparameter, such as batch_size=64,512.", {})
    copy_optimizer_state: bool = _option("Copy the optimizer's state when the parent is of the same kind.", True)

    # evaluation
    episodes: int = _option("Deterministic episodes whose mean return is a member's fitness, per interval.", 5)
    final_episodes: int = _option("Deterministic episodes of the best policy after training.", 10)

    # faults
    time_limit: float = _option("Seconds that a call of an environment may take before it is killed; 0 for no limit.", 0.0)
    max_faults: int = _option("Failures of its environment that a member gets over in an interval.", 10)
    on_faults: str = _option("What one more failure does: 'quarantine' the member, or 'stop' the run.", "quarantine")

    # execution
    checkpoint_every: int = _option("Intervals between two checkpoints.", 1)
    steps_per_round: int = _option(
        "Environment steps taken with one policy; above 1 updates run meanwhile, as many as there are steps.", 1
    )
    precision: str = _option(
        "Of the networks' matrix products: 'float32', 'tensorfloat32' (where the device has it) or 'bfloat16'.", "float32"
    )
    placement: str = _option("How members share a device: 'map', 'vmap', or 'auto' (map on a CPU, vmap elsewhere).", "auto")

    def __post_init__(self) -> None:
        """Fill in the preset, resolve the optimizers' options, and check everything."""
        for field in dataclasses.fields(self):
            _check_size(field.name, getattr(self, field.name), limits.DEPTH)
        if not isinstance(self.env, str) or not self.env.strip():
            raise UserError(f"env is {self.env!r}; it must name a Gymnasium environment, such as HalfCheetah-v4.")
        if not self.env.isprintable():
            raise UserError(f"env is {self.env!r}; it must have printable characters alone, such as HalfCheetah-v4.")
        if not isinstance(self.preset, str) or self.preset not in PRESETS:
            raise UserError(
                f"unknown preset {self.preset!r}{closest(str(self.preset), PRESETS)}; choose from {', '.join(PRESETS)}."
            )
        values = PRESETS[self.preset](self.env)
        hints = typing.get_type_hints(Run)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is _PRESET:
                value = values.get(field.name)
            object.__setattr__(self, field.name, _typed(field.name, value, hints[field.name]))
        _check(self)
        object.__setattr__(self, "optimizers", _resolved_optimizers(self, values["learning_rate"]))
        _check_bounds(self)

    @property
    def kinds(self) -> list[str]:
        """Each slot's optimizer kind, in the order of the mix."""
        return [kind for kind, count in self.mix.items() for _ in range(count)]

    def initial_hyperparameters(self, kind: str) -> Hyperparameters:
        """Return what a member of this kind starts with."""
        actor, critic = optimizers.networks_of(kind)
        return Hyperparameters(
            batch_size=self.batch_size,
            actor_learning_rate=float(self.optimizers[actor]["actor"]["learning_rate"]),
            critic_learning_rate=float(self.optimizers[critic]["critic"]["learning_rate"]),
            actor_damping=float(self.optimizers[actor]["actor"].get("damping", 0.0)),
            critic_damping=float(self.optimizers[critic]["critic"].get("damping", 0.0)),
            discount=self.discount,
            tau=self.tau,
            target_noise=self.target_noise,
            target_noise_clip=self.target_noise_clip,
            exploration_noise=self.exploration_noise,
        )

    def perturbed(self, kind: str) -> tuple[str, ...]:
        """Return the hyperparameters that exploration perturbs in a member of this kind."""
        lacking = {
            f"{role}_damping"
            for role, name in zip(optimizers.ROLES, optimizers.networks_of(kind), strict=True)
            if not optimizers.has_damping(name)
        }
        return tuple(name for name in self.perturb if name not in lacking)

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Return the least and the largest value of a hyperparameter."""
        return self.bounds.get(name, BOUNDS[name])

    def interval_steps(self, kind: str, length: int) -> int:
        """Return how many of an interval's `length` steps a kind takes (of gradient alone, if shrink = 'gradient')."""
        own = self.steps_per_interval.get(kind, self.interval)
        return round(length * own / self.interval)


# ------------------------------------------------------------------------------------------------------------ presets


def _zoo(env: str) -> dict[str, Any]:
    """RL Baselines3 Zoo's hyperparameters for TD3 on MuJoCo v4 (hyperparams/td3.yml, unchanged since January 2024)."""
    return {
        "steps": 2_000_000 if env.startswith("Humanoid-") else 1_000_000,
        "actor_layers": (400, 300),
        "critic_layers": (400, 300),
        "discount": 0.9999 if env.startswith("Swimmer-") else 0.99,
        "tau": 0.005,
        "policy_delay": 2,
        "target_noise": 0.2,
        "target_noise_clip": 0.5,
        "exploration_noise": 0.1,
        "warm_up_noise": False,
        "learning_starts": 10_000,
        "buffer_size": 1_000_000,
        "batch_size": 256,
        "learning_rate": 1e-3,
    }


def _sb3(env: str) -> dict[str, Any]:
    """The Zoo's hyperparameters as Stable-Baselines3 applies them: noise in the warm-up, too."""
    return _zoo(env) | {"warm_up_noise": True}


def _cleanrl(env: str) -> dict[str, Any]:
    """CleanRL's own defaults (td3_continuous_action.py)."""
    return _zoo(env) | {
        "steps": 1_000_000,
        "actor_layers": (256, 256),
        "critic_layers": (256, 256),
        "discount": 0.99,
        "learning_starts": 25_000,
        "learning_rate": 3e-4,
    }


PRESETS: dict[str, Callable[[str], dict[str, Any]]] = {"paper": _zoo, "sb3": _sb3, "cleanrl": _cleanrl}

# ------------------------------------------------------------------------------------------------------------- checks


def _trainable(layers: tuple[int, ...]) -> bool:
    if not 0 < len(layers) <= limits.LAYERS or not all(0 < units <= limits.UNITS for units in layers):
        return False
    return sum(i * o for i, o in itertools.pairwise(layers)) <= limits.WEIGHTS


_LAYERS_RULE = (
    f"one or more positive numbers of units, at most {limits.LAYERS} layers of {limits.UNITS} units with "
    f"{limits.WEIGHTS:,} weights between them"
)

# Field: (what must hold, the rule in words, an example).
_RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "steps": (lambda x: 0 < x <= limits.STEPS, "a positive number of environment steps, at most 1e15", "1000000"),
    "seed": (lambda x: 0 <= x < 2**32, "a whole number from 0 to 4294967295", "0"),
    "discount": (lambda x: 0 <= x <= 1, "between 0 and 1", "0.99"),
    "tau": (lambda x: 0 < x <= 1, "above 0 and at most 1", "0.005"),
    "policy_delay": (lambda x: 0 < x <= limits.UPDATES, "a positive number of updates, at most 1e9", "2"),
    "target_noise": (lambda x: 0 <= x < math.inf, "a finite number not below 0", "0.2"),
    "target_noise_clip": (lambda x: 0 <= x < math.inf, "a finite number not below 0", "0.5"),
    "exploration_noise": (lambda x: 0 <= x < math.inf, "a finite number not below 0", "0.1"),
    "learning_starts": (
        lambda x: 0 <= x <= limits.STEPS,
        "a number of environment steps not below 0 and at most 1e15",
        "10000",
    ),
    "buffer_size": (lambda x: 0 < x <= limits.BUFFER, "a positive number of transitions, at most 1e8", "1000000"),
    "batch_size": (lambda x: 0 < x <= limits.BATCH, "a positive number of transitions, at most 1e5", "256"),
    "checkpoint_every": (lambda x: 0 < x <= limits.STEPS, "a positive number of intervals, at most 1e15", "1"),
    "interval": (lambda x: 0 < x <= limits.STEPS, "a positive number of environment steps, at most 1e15", "10000"),
    "truncation": (lambda x: 0 < x <= 0.5, "above 0 and at most 0.5", "0.2"),
    "episodes": (lambda x: 0 < x <= limits.EPISODES, "a positive number of episodes, at most 1e5", "5"),
    "final_episodes": (lambda x: 0 < x <= limits.EPISODES, "a positive number of episodes, at most 1e5", "10"),
    "time_limit": (
        lambda x: 0 <= x <= limits.TIME_LIMIT,
        f"a number of seconds not below 0 and at most {limits.TIME_LIMIT}",
        "10",
    ),
    "max_faults": (
        lambda x: 0 <= x <= limits.FAULTS,
        f"a number of failures not below 0 and at most {limits.FAULTS}",
        "10",
    ),
    "on_faults": (lambda x: x in ("quarantine", "stop"), "'quarantine' or 'stop'", "'quarantine'"),
    "shrink": (lambda x: x in ("both", "gradient"), "'both' or 'gradient'", "'both'"),
    "steps_per_round": (lambda x: 0 < x <= limits.STEPS, "a positive number of environment steps, at most 1e15", "1"),
    "precision": (
        lambda x: x in ("float32", "tensorfloat32", "bfloat16"),
        "'float32', 'tensorfloat32' or 'bfloat16'",
        "'float32'",
    ),
    "placement": (lambda x: x in ("auto", "map", "vmap"), "'auto', 'map' or 'vmap'", "'auto'"),
    "actor_layers": (_trainable, _LAYERS_RULE, "400 300"),
    "critic_layers": (_trainable, _LAYERS_RULE, "400 300"),
    "factors": (
        lambda x: 0 < len(x) <= limits.ENTRIES and all(0 < f < math.inf for f in x),
        f"one or more positive numbers, at most {limits.ENTRIES} of them",
        "0.8 1.2",
    ),
    "perturb": (lambda x: len(x) <= limits.ENTRIES, f"at most {limits.ENTRIES} names", "batch_size"),
}

# Of fields without a rule of their own.
_EXAMPLES = {
    "mix": "adam=1",
    "optimizers": "kfac.damping=0.1",
    "steps_per_interval": "kfac=3000",
    "bounds": "batch_size=64,512",
}


def _check_size(name: str, value: Any, depth: int) -> None:
    """Raise UserError for what nests too deeply, and for numbers and texts that are too long."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{name} is a whole number of {value.bit_length()} bits; it must fit into 64, so write a smaller one.")
    if isinstance(value, str) and len(value) > limits.NAME:
        raise UserError(f"{name} has {len(value)} characters ({value!r}); it must have at most {limits.NAME}, so shorten it.")
    if not isinstance(value, Mapping | list | tuple):
        return
    if depth == 0:
        raise UserError(f"{name.partition('.')[0]} nests tables or lists more than {limits.DEPTH} deep; write it flat.")
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        _check_size(f"{name}.{key}", item, depth - 1)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return the value as the field's type, or raise UserError. TOML has lists for tuples, and 1 where 1.0 is meant."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(name, item, arguments[0]) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _typed(f"{name}.{key}", item, arguments[1]) for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
        hint, "a list" if origin is tuple else "a table of names and values"
    )
    field = name.partition(".")[0]
    example = _RULES[field][2] if field in _RULES else _EXAMPLES.get(field)
    raise UserError(f"{name} is {value!r}; it must be {wanted}{f', such as {example}' if example else ''}.")


def _check(run: Run) -> None:
    for name, (holds, rule, example) in _RULES.items():
        value = getattr(run, name)
        if not holds(value):
            raise UserError(f"{name} is {_shown(value)}; it must be {rule}, such as {example}.")
    if not run.mix:
        raise UserError("mix is empty; it must name at least one optimizer kind, such as adam=1.")
    for kind, count in run.mix.items():
        for optimizer in optimizers.networks_of(kind):
            optimizers.check_name(optimizer)
        if count < 1:
            raise UserError(f"mix.{kind} is {count}; it must be a positive number of slots, such as {kind}=1.")
    if sum(run.mix.values()) > limits.MEMBERS:
        raise UserError(f"mix has {sum(run.mix.values())} slots; it must have at most {limits.MEMBERS}, such as adam=6 kfac=2.")
    if run.batch_size > run.buffer_size:
        raise UserError(
            f"batch_size is {run.batch_size}, more than the {run.buffer_size} transitions of the buffer; "
            "lower batch_size or raise buffer_size."
        )
    for kind, steps in run.steps_per_interval.items():
        if kind not in run.mix:
            raise UserError(
                f"steps_per_interval names {kind!r}, which is not in the mix{closest(kind, run.mix)}; "
                f"choose from {', '.join(run.mix)}."
            )
        if not 0 < steps <= run.interval:
            raise UserError(
                f"steps_per_interval.{kind} is {steps}; it must be positive and at most the interval, {run.interval}."
            )
    for kind in run.mix:
        share = run.steps_per_interval.get(kind, run.interval) / run.interval if run.shrink == "both" else 1.0
        if run.steps * share <= run.learning_starts:
            raise UserError(
                f"steps is {run.steps}{f', of which {kind} takes {run.steps * share:.0f}' if share < 1 else ''}, "
                f"not more than the {run.learning_starts} of learning_starts, so nothing would be learnt; "
                "raise steps or lower learning_starts."
            )
    for name in (*run.perturb, *run.bounds):
        if name not in Hyperparameters._fields:
            raise UserError(
                f"{name!r} is no hyperparameter{closest(name, Hyperparameters._fields)}; "
                f"choose from {', '.join(Hyperparameters._fields)}."
            )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) and value else repr(value)


def _check_bounds(run: Run) -> None:
    for name, pair in run.bounds.items():
        whole = name == "batch_size"
        ok = isinstance(pair, list | tuple) and len(pair) == 2 and all(type(x) in (int, float) for x in pair)
        if not ok or not 0 < pair[0] <= pair[1] < math.inf or (whole and any(x != int(x) for x in pair)):
            rule = "two positive whole numbers" if whole else "two positive numbers"
            example = "64, 512" if whole else "0.001, 0.1"
            raise UserError(f"bounds.{name} is {_shown(pair)}; it must be {rule}, least first, such as {example}.")
        if whole and pair[1] > limits.BATCH:
            raise UserError(f"bounds.{name} is {_shown(pair)}; it must be at most {limits.BATCH}, such as 64, 512.")
        run.bounds[name] = (pair[0], pair[1])
    low, high = run.bounds_of("batch_size")
    if "batch_size" in run.perturb and high > run.buffer_size:
        # Exploration must not grow a batch beyond the buffer.
        low = low if "batch_size" in run.bounds else min(low, run.batch_size)
        run.bounds["batch_size"] = (min(low, run.buffer_size), run.buffer_size)
    for kind in run.mix if len(run.kinds) > 1 else ():
        start = run.initial_hyperparameters(kind)
        for name in run.perturbed(kind):
            low, high = run.bounds_of(name)
            if not low <= getattr(start, name) <= high:
                raise UserError(
                    f"{name} of {kind} starts at {getattr(start, name):g}, outside its bounds {low:g} to {high:g}; "
                    f"change it or set bounds.{name}."
                )


def _resolved_optimizers(run: Run, learning_rate: float) -> dict[str, Any]:
    used = {name: None for kind in run.mix for name in optimizers.networks_of(kind)}
    resolved: dict[str, Any] = {}
    for name in {**used, **run.optimizers}:
        optimizers.check_name(name)
        given = run.optimizers.get(name, {})
        if not isinstance(given, Mapping):
            raise UserError(f"optimizers.{name} is {given!r}; it must be a table of options, such as learning_rate = 0.001.")
        shared = {k: v for k, v in given.items() if k not in optimizers.ROLES}
        resolved[name] = {}
        for role in optimizers.ROLES:
            own = given.get(role, {})
            if not isinstance(own, Mapping):
                raise UserError(f"optimizers.{name}.{role} is {own!r}; it must be a table of options.")
            resolved[name][role] = optimizers.resolve_options(name, role, {**shared, **own}, learning_rate)
    return resolved


# --------------------------------------------------------------------------------------------------------------- TOML


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top; tables are merged key by key, except a mix, which replaces the whole.

    An optimizer's option for both networks also replaces what lies below for each network.
    """
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and name != "mix":
            value = merge(_uncovered(old, value), value)
        merged[name] = value
    return merged


def _uncovered(options: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's options less those of a single network that `over` sets for both."""
    left = dict(options)
    for role in optimizers.ROLES:
        if isinstance(own := left.get(role), Mapping):
            left[role] = {option: value for option, value in own.items() if option not in over}
    return left


def read(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file; raises UserError where it is missing, unreadable, or has an unknown key."""
    where = f"the configuration file {str(path)!r}"
    try:
        text = read_at_most(path, limits.CONFIG_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{where} does not exist; check the path.") from None
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8 text; save it as such.") from None
    except UserError:
        raise
    # ValueError: a path with a character that none may have.
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be read: {reason(error)}; check the path.") from None
    return parse(text, where)


def parse(text: str, where: str) -> dict[str, Any]:
    """Return the settings of TOML text; raises UserError, which names `where` it is from, as `read` does."""
    if len(text) > limits.CONFIG_BYTES:
        raise UserError(f"{where} has {len(text):,} characters; it must have at most {limits.CONFIG_BYTES:,}, so shorten it.")
    # Only a line feed ends a line: a quoted key may hold what else would split text into lines.
    if any(len(line) > limits.CONFIG_LINE for line in text.split("\n")):
        raise UserError(f"{where} has a line of more than {limits.CONFIG_LINE} characters; break it.")
    try:
        settings = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where} nests too deeply; write it flat.") from None
    except ValueError as error:  # TOMLDecodeError is one; so are a date without a day, and a number of thousands of digits
        raise UserError(f"{where} is not valid TOML: {error}.") from None
    known = [field.name for field in dataclasses.fields(Run)]
    for name in settings:
        if name not in known:
            raise UserError(f"unknown key {name!r} in {where}{closest(name, known)}; see `evolute train --help`.")
    return settings


def to_toml(run: Run) -> str:
    """Return the run as TOML that gives the same run when read again."""
    return tomli_w.dumps({field.name: _plain(getattr(run, field.name)) for field in dataclasses.fields(run)})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
