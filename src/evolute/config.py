"""What a run is: one frozen record; a mistake is one sentence with value, rule and fix."""

import dataclasses
import itertools
import math
from typing import Any

from evolute import limits, optimizers, options
from evolute.errors import UserError, closest
from evolute.hyperparameters import BOUNDS, SETTINGS, Hyperparameters
from evolute.options import Rule, choice, not_negative, positive, setting
from evolute.presets import PRESETS as PRESETS

# Stands for "the preset's value" until a Run is made.
_PRESET: Any = None
STEPS = "environment steps"


def _trainable(layers: tuple[int, ...]) -> bool:
    if not 0 < len(layers) <= limits.LAYERS or not all(0 < units <= limits.UNITS for units in layers):
        return False
    return sum(i * o for i, o in itertools.pairwise(layers)) <= limits.WEIGHTS


_ENV = Rule(
    lambda x: type(x) is str and x.isprintable() and bool(x.strip()),
    "printable text that names a Gymnasium environment",
)
_MIX = Rule(
    lambda x: bool(x) and min(x.values()) > 0 and sum(x.values()) <= limits.MEMBERS,
    f"a positive number of slots for each of one or more optimizer kinds, at most {limits.MEMBERS} together",
)
_LAYERS = Rule(
    _trainable,
    f"one or more positive numbers of units, at most {limits.LAYERS} layers of {limits.UNITS} units with "
    f"{limits.WEIGHTS:,} weights between them",
)
_TABLE = Rule(lambda x: True, "a table")  # whose entries are checked one by one
_COUNTS = Rule(lambda x: all(count > 0 for count in x.values()), "a positive number{of} for each kind")
_FACTORS = Rule(
    lambda x: 0 < len(x) <= limits.ENTRIES and all(0 < factor < math.inf for factor in x),
    f"one or more positive numbers, at most {limits.ENTRIES} of them",
)
_FREQUENCIES = Rule(
    lambda x: 1 < len(x) <= limits.ENTRIES and x[0] == 1 and all(a < b <= limits.STEPS for a, b in itertools.pairwise(x)),
    "two or more rising whole numbers, the first of which is 1",
)
_NAMES = Rule(lambda x: len(x) <= limits.ENTRIES and all(type(name) is str for name in x), f"at most {limits.ENTRIES} names")


@options.declared
class Run:
    """Everything that decides a run. A Run that exists is complete and valid; making one raises UserError otherwise.

    Whatever is left out comes from the preset, which may look at the environment.
    """

    # A file without one must not end in a TypeError.
    env: str = setting("Gymnasium id, such as HalfCheetah-v4 or my_package:MyEnv-v0.", _ENV, "HalfCheetah-v4", default=_PRESET)
    mix: dict[str, int] = setting(
        "Slots of each optimizer kind, such as adam=6 kfac=2. ACTOR/CRITIC names two optimizers: adam/kfac=2.",
        _MIX,
        "adam=1",
        common=True,
        default={"adam": 1},
    )
    steps: int = setting(
        "Environment steps of each member.", positive(limits.RUN_STEPS), "1000000", STEPS, common=True, default=_PRESET
    )
    seed: int = setting(
        "Seed of everything random in the run.",
        Rule(lambda x: 0 <= x < 2**32, "a whole number from 0 to 4294967295"),
        "0",
        common=True,
        default=0,
    )
    preset: str = setting(
        "Where defaults come from: paper, sb3 or cleanrl.", choice(*PRESETS), "'paper'", common=True, default="paper"
    )

    actor_layers: tuple[int, ...] = setting(
        "Hidden units of each layer of the actor.",
        _LAYERS,
        "400 300",
        "units",
        section="algorithm",
        common=True,
        default=_PRESET,
    )
    critic_layers: tuple[int, ...] = setting(
        "Hidden units of each layer of the two critics.", _LAYERS, "400 300", "units", common=True, default=_PRESET
    )
    discount: float = setting(*SETTINGS["discount"], default=_PRESET)
    tau: float = setting(*SETTINGS["tau"], default=_PRESET)
    policy_delay: int = setting(
        "Critic updates per update of the actor and the targets.", positive(limits.UPDATES), "2", "updates", default=_PRESET
    )
    target_noise: float = setting(*SETTINGS["target_noise"], default=_PRESET)
    target_noise_clip: float = setting(*SETTINGS["target_noise_clip"], default=_PRESET)
    exploration_noise: float = setting(*SETTINGS["exploration_noise"], default=_PRESET)
    warm_up_noise: bool = setting(
        "Add exploration noise to the uniform actions before learning starts, as SB3 does.",
        options.SWITCH,
        "false",
        default=_PRESET,
    )
    learning_starts: int = setting(
        "Environment steps of uniformly random actions before the first update.",
        not_negative(limits.STEPS),
        "10000",
        STEPS,
        default=_PRESET,
    )
    buffer_size: int = setting(
        "Transitions in each member's replay buffer.", positive(limits.BUFFER), "1000000", "transitions", default=_PRESET
    )
    batch_size: int = setting(*SETTINGS["batch_size"], default=_PRESET)
    optimizers: dict[str, Any] = setting(
        "Options by optimizer, such as kfac.damping=0.1 or kfac.actor.learning_rate=0.03.",
        _TABLE,
        "kfac.damping=0.1",
        common=True,
        default={},
    )

    interval: int = setting(
        "Environment steps of a member between two evolutions.",
        positive(limits.STEPS),
        "10000",
        STEPS,
        section="population-based training",
        common=True,
        default=10_000,
    )
    steps_per_interval: dict[str, int] = setting(
        "Fewer steps per interval for some kinds, such as kfac=3000.", _COUNTS, "kfac=3000", STEPS, default={}
    )
    shrink: str = setting(
        "Which steps steps_per_interval makes fewer: 'both' environment and gradient steps, or 'gradient' steps alone.",
        choice("both", "gradient"),
        "'both'",
        default="both",
    )
    strategy: str = setting(
        "How exploits find new hyperparameters: 'pbt' perturbs them, 'pb2' fits a Gaussian process to what every member gained, "
        "'mfpbt' has sub-populations that evolve at different frequencies.",
        choice("pbt", "pb2", "mfpbt"),
        "'pbt'",
        default="pbt",
    )
    frequencies: tuple[int, ...] = setting(
        "For mfpbt: evolutions from one of a sub-population's own to the next, for each sub-population.",
        _FREQUENCIES,
        "1 10 25 50",
        "evolutions",
        default=(1, 10, 25, 50),
    )
    truncation: float = setting(
        "Fraction of the population that is replaced at an evolution, at most one half.",
        Rule(lambda x: 0 < x <= 0.5, "above 0 and at most 0.5"),
        "0.2",
        default=0.2,
    )
    factors: tuple[float, ...] = setting(
        "Factors by which exploration multiplies a hyperparameter.", _FACTORS, "0.8 1.2", default=(0.8, 1.2)
    )
    perturb: tuple[str, ...] = setting(
        "Hyperparameters that exploration perturbs.",
        _NAMES,
        "batch_size",
        default=("batch_size", "actor_learning_rate", "critic_learning_rate", "actor_damping", "critic_damping"),
    )
    bounds: dict[str, Any] = setting(
        "Least and largest value of a perturbed hyperparameter, such as batch_size=64,512.",
        _TABLE,
        "batch_size=64,512",
        default={},
    )
    initial: dict[str, Any] = setting(
        "What each member's first hyperparameters are drawn from: LOW,HIGH log-uniformly, or one of three or more values.",
        _TABLE,
        "actor_learning_rate=0.0001,0.01",
        default={},
    )
    copy_optimizer_state: bool = setting(
        "Copy the optimizer's state when the parent is of the same kind.", options.SWITCH, "true", default=True
    )

    episodes: int = setting(
        "Deterministic episodes whose mean return is a member's fitness, per interval.",
        positive(limits.EPISODES),
        "5",
        "episodes",
        section="evaluation",
        default=5,
    )
    final_episodes: int = setting(
        "Deterministic episodes of the best policy after training.", positive(limits.EPISODES), "10", "episodes", default=10
    )

    time_limit: float = setting(
        "Seconds that a call of an environment may take before it is killed; 0 for no limit.",
        not_negative(limits.TIME_LIMIT),
        "10",
        "seconds",
        section="fault",
        default=0.0,
    )
    max_faults: int = setting(
        "Failures of its environment that a member tolerates in an interval.",
        not_negative(limits.FAULTS),
        "10",
        "failures",
        default=10,
    )
    on_faults: str = setting(
        "What one more failure does: 'quarantine' the member, or 'stop' the run.",
        choice("quarantine", "stop"),
        "'quarantine'",
        default="quarantine",
    )

    checkpoint_every: int = setting(
        "Intervals between two checkpoints.", positive(limits.STEPS), "1", "intervals", section="execution", default=1
    )
    steps_per_round: int = setting(
        "Environment steps taken with one policy; above 1, as many updates run at the same time.",
        positive(limits.STEPS),
        "1",
        STEPS,
        default=1,
    )
    precision: str = setting(
        "Precision of the networks' matrix products: 'float32', 'tensorfloat32' (where the device has it) or 'bfloat16'.",
        choice("float32", "tensorfloat32", "bfloat16"),
        "'float32'",
        default="float32",
    )
    placement: str = setting(
        "How members share a device: 'map', 'vmap', or 'auto' (map on a CPU, vmap elsewhere).",
        choice("auto", "map", "vmap"),
        "'auto'",
        default="auto",
    )

    def __post_init__(self) -> None:
        """Fill in the preset, resolve the optimizers' options, and check everything."""
        named = {field.name: field for field in dataclasses.fields(self) if field.name in ("env", "preset")}
        env, preset = (
            options.checked(name, getattr(self, name), str, options.Setting.of(field)) for name, field in named.items()
        )
        defaults = PRESETS[preset](env)
        given = {name: value for name, value in vars(self).items() if value is not _PRESET or name not in defaults}
        for name, value in options.completed(Run, defaults | given).items():
            object.__setattr__(self, name, value)
        _check(self)
        used = [name for kind in self.mix for name in optimizers.networks_of(kind)]
        resolved = optimizers.resolve(used, self.optimizers, defaults["learning_rate"])
        object.__setattr__(self, "optimizers", resolved)
        _check_bounds(self)
        _check_initial(self)

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
        return tuple(name for name in self.perturb if name not in self._lacking(kind))

    def _lacking(self, kind: str) -> set[str]:
        """Return the hyperparameters that a member of this kind does not have."""
        networks = zip(optimizers.ROLES, optimizers.networks_of(kind), strict=True)
        return {f"{role}_damping" for role, name in networks if not optimizers.has_damping(name)}

    def starts_of(self, kind: str) -> dict[str, tuple[float, ...]]:
        """Return what each member of this kind draws its first hyperparameters from, by name."""
        lacking = self._lacking(kind)
        return {name: given for name, given in self.initial.items() if name not in lacking}

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Return the least and the largest value of a hyperparameter."""
        return self.bounds.get(name, BOUNDS[name])

    def interval_steps(self, kind: str, length: int) -> int:
        """Return how many of an interval's `length` steps a kind takes (of gradient alone, if shrink = 'gradient')."""
        own = self.steps_per_interval.get(kind, self.interval)
        return round(length * own / self.interval)


# ------------------------------------------------------------------------------------------------------------- checks


def _check(run: Run) -> None:
    """Check what no setting can say of itself alone."""
    for kind in run.mix:
        optimizers.check_kind(kind)
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
        if steps > run.interval:
            raise UserError(f"steps_per_interval.{kind} is {steps}; it must be at most the interval, {run.interval}.")
    for kind in run.mix:
        share = run.steps_per_interval.get(kind, run.interval) / run.interval if run.shrink == "both" else 1.0
        if run.steps * share <= run.learning_starts:
            raise UserError(
                f"steps is {run.steps}{f', of which {kind} takes {run.steps * share:.0f}' if share < 1 else ''}, "
                f"not more than the {run.learning_starts} of learning_starts, so nothing would be learnt; "
                "raise steps or lower learning_starts."
            )
    # Each sub-population is ranked into quarters.
    parts = 4 * len(run.frequencies)
    if run.strategy == "mfpbt" and len(run.kinds) % parts:
        raise UserError(
            f"strategy is 'mfpbt' with {len(run.frequencies)} frequencies, and mix has {len(run.kinds)} members; their number "
            f"must be a multiple of {parts}, four times the frequencies."
        )
    for name in (*run.perturb, *run.bounds, *run.initial):
        if name not in Hyperparameters._fields:
            raise UserError(
                f"{name!r} is no hyperparameter{closest(name, Hyperparameters._fields)}; "
                f"choose from {', '.join(Hyperparameters._fields)}."
            )


def _check_bounds(run: Run) -> None:
    for name, pair in run.bounds.items():
        whole, own = name == "batch_size", SETTINGS[name]
        ok = isinstance(pair, list | tuple) and len(pair) == 2 and all(type(x) in (int, float) for x in pair)
        if not ok or not 0 < pair[0] <= pair[1] < math.inf or (whole and any(x != int(x) for x in pair)):
            rule = "two positive whole numbers" if whole else "two positive numbers"
            example = "64, 512" if whole else "0.001, 0.1"
            raise UserError(f"bounds.{name} is {options.shown(pair)}; it must be {rule}, least first, such as {example}.")
        for bound in pair:
            options.checked(f"a bound of {name}", bound, int if whole else float, own)
        run.bounds[name] = (pair[0], pair[1])
    low, high = run.bounds_of("batch_size")
    if "batch_size" in run.perturb and high > run.buffer_size:
        # Exploration must not grow a batch beyond the buffer.
        low = low if "batch_size" in run.bounds else min(low, run.batch_size)
        run.bounds["batch_size"] = (min(low, run.buffer_size), run.buffer_size)
    for kind in run.mix if len(run.kinds) > 1 else ():
        start = run.initial_hyperparameters(kind)
        for name in (name for name in run.perturbed(kind) if name not in run.initial):
            low, high = run.bounds_of(name)
            if not low <= getattr(start, name) <= high:
                raise UserError(
                    f"{name} of {kind} starts at {getattr(start, name):g}, outside its bounds {low:g} to {high:g}; "
                    f"change it or set bounds.{name}."
                )


def _check_initial(run: Run) -> None:
    for name, given in run.initial.items():
        whole, own = name == "batch_size", SETTINGS[name]
        ok = isinstance(given, list | tuple) and 2 <= len(given) <= limits.ENTRIES and all(type(x) in (int, float) for x in given)
        if not ok or not all(0 < x < math.inf for x in given) or (len(given) == 2 and given[0] > given[1]):
            raise UserError(
                f"initial.{name} is {options.shown(given)}; it must be two positive numbers, least first, or three or more to "
                f"choose from, such as {'64, 512' if whole else '0.0001, 0.01'}."
            )
        run.initial[name] = tuple(options.checked(f"a start of {name}", x, int if whole else float, own) for x in given)
        if not any(name in run.starts_of(kind) for kind in run.mix):
            raise UserError(f"initial.{name} is given, and no kind of the mix has it; leave it out or add one, such as kfac=1.")
        low, high = run.bounds_of(name)
        if name in run.perturb and len(run.kinds) > 1 and not low <= min(given) <= max(given) <= high:
            raise UserError(
                f"initial.{name} is {options.shown(tuple(given))}, outside its bounds {low:g} to {high:g}; change it or set "
                f"bounds.{name}."
            )
        if whole and max(given) > run.buffer_size:
            raise UserError(
                f"initial.batch_size goes up to {max(given)}, more than the {run.buffer_size} transitions of the buffer; "
                "lower it or raise buffer_size."
            )
