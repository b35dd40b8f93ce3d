"""What a run is: one frozen record; a mistake is one sentence with value, rule and fix."""

import dataclasses
import typing
from typing import Any

from evolute import checks, kinds, limits, optimizers, options, resolution, schedule
from evolute.hyperparameters import BOUNDS, SETTINGS, Hyperparameters
from evolute.options import Rule, choice, not_negative, positive, setting
from evolute.overlay import merge
from evolute.paths import path_of
from evolute.presets import ALGORITHMS
from evolute.presets import PRESETS as PRESETS
from evolute.rules import CALL, COUNTS, ENV, FACTORS, FREQUENCIES, KWARGS, LAYERS, MIX, NAMES, PATH, TABLE, WRAPPERS
from evolute.structure import ACTIVATIONS, NETWORKS

# Stands for "the preset's value" until a Run is made.
_PRESET: Any = None
STEPS = "environment steps"


@options.declared
class Run:
    """Everything that decides a run. A Run that exists is complete and valid; making one raises UserError otherwise.

    Whatever is left out comes from the preset, which may look at the environment. `dataclasses.replace` gives a run with other
    settings; what `algorithms` says of one algorithm alone holds on then.
    """

    # A file without one must not end in a TypeError.
    env: str = setting(
        "Gymnasium id, such as HalfCheetah-v4 or my_package:MyEnv-v0, or a function that makes the environment: "
        "my_package.envs:make(). In Python it may be the function itself.",
        ENV,
        "HalfCheetah-v4",
        default=_PRESET,
    )
    mix: dict[str, int] = setting(
        "Slots of each optimizer kind, such as adam=6 kfac=2. ACTOR/CRITIC names two optimizers: adam/kfac=2. Another algorithm "
        "than TD3 is named in front: sac:adam=2 ddpg:adam=1.",
        MIX,
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
        "Where defaults come from: paper, sb3 or cleanrl (docs/settings.md has them side by side).",
        choice(*PRESETS),
        "'paper'",
        common=True,
        default="paper",
    )

    # what members learn by: a default is that of the first algorithm of the mix that has the setting
    actor_layers: tuple[int, ...] = setting(
        "Hidden units of each layer of the actor.",
        LAYERS,
        "400 300",
        "units",
        section="algorithm",
        common=True,
        default=_PRESET,
    )
    critic_layers: tuple[int, ...] = setting(
        "Hidden units of each layer of the critics.", LAYERS, "400 300", "units", common=True, default=_PRESET
    )
    network: str = setting(
        "What the layers make: 'mlp', or 'simba', residual blocks of Lee et al. (2024): one for each width given, all equal.",
        choice(*NETWORKS),
        "'simba'",
        default=_PRESET,
    )
    activation: str = setting("Of hidden units: 'relu', 'tanh' or 'elu'.", choice(*ACTIVATIONS), "'tanh'", default=_PRESET)
    layer_norm: bool = setting(
        "Normalise each sample's units of every hidden layer of an mlp before the activation.",
        options.SWITCH,
        "true",
        default=_PRESET,
    )
    discount: float = setting(*SETTINGS["discount"], default=_PRESET)
    tau: float = setting(*SETTINGS["tau"], default=_PRESET)
    policy_delay: int = setting(
        "Critic updates per update of the actor and the targets.", positive(limits.UPDATES), "2", "updates", default=_PRESET
    )
    target_noise: float = setting(*SETTINGS["target_noise"], default=_PRESET)
    target_noise_clip: float = setting(*SETTINGS["target_noise_clip"], default=_PRESET)
    exploration_noise: float = setting(*SETTINGS["exploration_noise"], default=_PRESET)
    temperature_learning_rate: float = setting(*SETTINGS["temperature_learning_rate"], default=_PRESET)
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
    n_step: int = setting(
        "Environment steps whose rewards a target adds up before it bootstraps.", positive(limits.N_STEP), "3", STEPS, default=1
    )
    algorithms: dict[str, Any] = setting(
        "Settings of one algorithm alone, such as sac.discount=0.999 or sac.optimizers.kfac.damping=0.1.",
        TABLE,
        "sac.discount=0.999",
        default={},
    )
    optimizers: dict[str, Any] = setting(
        "Options by optimizer, such as kfac.damping=0.1 or kfac.actor.learning_rate=0.03 (docs/settings.md lists them).",
        TABLE,
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
        "Fewer steps per interval for some kinds, such as kfac=3000.", COUNTS, "kfac=3000", STEPS, default={}
    )
    shrink: str = setting(
        "Which steps steps_per_interval makes fewer: 'both' environment and gradient steps, or 'gradient' steps alone.",
        choice("both", "gradient"),
        "'both'",
        default="both",
    )
    strategy: str = setting(
        "How exploits find new hyperparameters: 'pbt' perturbs them, 'pb2' fits a Gaussian process to what every member gained, "
        "'mfpbt' has sub-populations that evolve at different frequencies (with the default ones, a multiple of 16 members). "
        "Controls: 'blind' copies and perturbs by chance, 'none' nobody; 'replay' has one member that follows a schedule.",
        choice("pbt", "pb2", "mfpbt", "blind", "none", "replay"),
        "'pbt'",
        default="pbt",
    )
    frequencies: tuple[int, ...] = setting(
        "For mfpbt: one number N for each sub-population, which takes part in every N-th evolution; the first is 1. "
        "Members: a multiple of four times their count.",
        FREQUENCIES,
        "1 10 25 50",
        "evolutions",
        default=(1, 10, 25, 50),
    )
    schedule: dict[str, Any] = setting(
        "For replay: what the one member is from which interval on, counted from 0. `evolute replay` makes it of a run.",
        TABLE,
        "0.kind=adam 12.actor_learning_rate=0.0005",
        default={},
    )
    truncation: float = setting(
        "Fraction of the population that is replaced at an evolution, at most one half.",
        Rule(lambda x: 0 < x <= 0.5, "above 0 and at most 0.5"),
        "0.2",
        default=0.2,
    )
    factors: tuple[float, ...] = setting(
        "Factors by which exploration multiplies a hyperparameter.", FACTORS, "0.8 1.2", default=(0.8, 1.2)
    )
    perturb: tuple[str, ...] = setting(
        f"Hyperparameters that exploration perturbs; without a name, none. They are {', '.join(Hyperparameters._fields)}.",
        NAMES,
        "batch_size",
        default=("batch_size", "actor_learning_rate", "critic_learning_rate", "actor_damping", "critic_damping"),
    )
    bounds: dict[str, Any] = setting(
        "Least and largest value of a perturbed hyperparameter, such as batch_size=64,512; a start outside of them is refused.",
        TABLE,
        "batch_size=64,512",
        default={},
    )
    initial: dict[str, Any] = setting(
        "What each member's first hyperparameters are drawn from: LOW,HIGH log-uniformly, or one of three or more values. "
        "Names are those of perturb.",
        TABLE,
        "actor_learning_rate=0.0001,0.01",
        default={},
    )
    init_from: str = setting(
        "A run folder (its best policy) or a policy's folder: the actor that every member starts with. Critics start new.",
        PATH,
        "runs/first",
        default="none",
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

    env_kwargs: dict[str, Any] = setting(
        "Arguments of the environment, such as xml_file=robot.xml reset_noise_scale=0.05.",
        KWARGS,
        "reset_noise_scale=0.05",
        section="environment",
        default={},
    )
    max_episode_steps: int = setting(
        "Steps after which an episode is truncated; 0 for what the environment is registered with.",
        not_negative(limits.STEPS),
        "1000",
        STEPS,
        default=0,
    )
    wrap: tuple[str, ...] = setting(
        "Wrappers of your own, innermost first: each function is given the environment and returns one.",
        WRAPPERS,
        "my_package.wrappers:shaped",
        default=(),
    )
    normalize_observations: bool = setting(
        "Give networks each observation in standard deviations from the mean of what the member has observed in training.",
        options.SWITCH,
        "true",
        default=False,
    )
    reward_scale: float = setting(
        "Factor of the rewards that members learn from; returns are reported as they are.",
        positive(limits.REWARD_SCALE),
        "0.1",
        default=1.0,
    )

    keep_environments: bool = setting(
        "Make each environment once in a process, and only reset it afterwards: for environments that are slow to make.",
        options.SWITCH,
        "true",
        default=False,
    )
    carry_episodes: str = setting(
        "Whether an episode goes on over the end of an interval: 'always', 'never', or 'auto' (where one may be longer than an "
        "interval).",
        choice("auto", "always", "never"),
        "'auto'",
        default="auto",
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
        """Fill in the presets, resolve each algorithm's settings and the optimizers' options, and check everything."""
        given = {name: value for name, value in vars(self).items() if value is not _PRESET}
        if callable(given.get("env")):
            given["env"] = path_of("env", given["env"]) + CALL
        if isinstance(wrap := given.get("wrap"), list | tuple):
            given["wrap"] = [path_of("wrap", function) if callable(function) else function for function in wrap]
        hints, fields = typing.get_type_hints(Run), {field.name: field for field in dataclasses.fields(Run)}
        for name in ("env", "preset", "mix", "steps_per_interval"):
            given[name] = options.checked(name, given.get(name), hints[name], options.Setting.of(fields[name]))
        for name in ("mix", "steps_per_interval"):
            given[name] = kinds.by_plain_name(name, given[name])
        for kind in given["mix"]:
            kinds.check(kind)
        used = dict.fromkeys(kinds.of(kind).algorithm for kind in given["mix"])
        presets = {algorithm: PRESETS[given["preset"]](given["env"], algorithm) for algorithm in used}
        for name, value in resolution.resolve(Run, list(given["mix"]), given, presets).items():
            object.__setattr__(self, name, value)
        checks.check(self)

    @property
    def kinds(self) -> list[str]:
        """Each slot's optimizer kind, in the order of the mix; with a schedule that of the one member at the start."""
        if self.schedule:
            return [schedule.kind_at(self.schedule, 0)]
        return [kind for kind, count in self.mix.items() for _ in range(count)]

    def settings_of(self, kind: str) -> dict[str, Any]:
        """Return the settings of a kind's algorithm by name: only those that it has."""
        algorithm = kinds.of(kind).algorithm
        own = self.algorithms.get(algorithm, {})
        return {name: own.get(name, getattr(self, name)) for name in ALGORITHMS[algorithm]}

    def optimizers_of(self, kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the name and the options of a kind's optimizers by network."""
        algorithm, *names = kinds.of(kind)
        tables = merge(self.optimizers, self.algorithms.get(algorithm, {}).get("optimizers", {}))
        return {role: (name, tables[name][role]) for role, name in zip(optimizers.ROLES, names, strict=True)}

    def initial_hyperparameters(self, kind: str) -> Hyperparameters:
        """Return what a member of this kind starts with; what its algorithm or an optimizer does not have is zero."""
        own = self.settings_of(kind)
        for role, (_, table) in self.optimizers_of(kind).items():
            own |= {f"{role}_{name}": float(table.get(name, 0.0)) for name in ("learning_rate", "damping")}
        return Hyperparameters(**{name: own.get(name, 0.0) for name in Hyperparameters._fields})

    def perturbed(self, kind: str) -> tuple[str, ...]:
        """Return the hyperparameters that exploration perturbs in a member of this kind."""
        return tuple(name for name in self.perturb if name not in self._lacking(kind))

    def _lacking(self, kind: str) -> set[str]:
        """Return the hyperparameters that a member of this kind does not have."""
        undamped = {f"{role}_damping" for role, (name, _) in self.optimizers_of(kind).items() if not optimizers.has_damping(name)}
        return undamped | (resolution.OF_ALGORITHMS - self.settings_of(kind).keys())

    def starts_of(self, kind: str) -> dict[str, tuple[float, ...]]:
        """Return what each member of this kind draws its first hyperparameters from, by name."""
        lacking = self._lacking(kind)
        return {name: given for name, given in self.initial.items() if name not in lacking}

    def bounds_of(self, name: str) -> tuple[float, float]:
        """Return the least and the largest value of a hyperparameter."""
        return self.bounds.get(name, BOUNDS[name])

    @property
    def shortest_interval(self) -> int:
        """The fewest environment steps that a kind of the mix takes between two evolutions."""
        steps = [self.interval_steps(kind, self.interval) if self.shrink == "both" else self.interval for kind in self.mix]
        return min(steps)

    def interval_steps(self, kind: str, length: int) -> int:
        """Return how many of an interval's `length` steps a kind takes (of gradient alone, if shrink = 'gradient')."""
        own = self.steps_per_interval.get(kind, self.interval)
        return round(length * own / self.interval)
