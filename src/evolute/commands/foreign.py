"""Options as users of CleanRL, Stable-Baselines3, RL Zoo, RLlib and Spinning Up type them, and what they are called here."""

_ENV = "the environment is named without an option, such as: evolute train HalfCheetah-v4"
_RUN = "the run folder is named without an option, such as: evolute show runs/NAME"
_RATE = "use --optimizers adam.learning_rate=1e-3 (or adam.actor.learning_rate for one network, another kind for adam)"
_RATIO = "there is one update per environment step; use --shrink gradient and --steps-per-interval KIND=N for fewer"
_MIX = "the optimizers are chosen with --mix adam=4 kfac=2"
_OPTIMIZER = "options of optimizers are given with --optimizers, such as --optimizers kfac.damping=0.1"
_ALGORITHM = "algorithms are chosen with --mix td3:adam=4 sac:adam=2 ddpg:adam=1"
_LAYERS = "use --actor-layers 256 256 and --critic-layers 256 256"
_DEVICE = "set the variable JAX_PLATFORMS to cpu or cuda; --placement says how members share a device"
_THREADS = "all cores that there are members for are used; limit them with taskset"
_RECORDS = "evolute has no such option; metrics.jsonl and events.jsonl in the run folder hold everything that is logged"
_FILM = "record a policy with: evolute video runs/NAME, or look at it with: evolute play runs/NAME"
_NORMALIZE = "use --normalize-observations true for observations, and --reward-scale 0.1 for rewards"
_SAVE = "every interval ends with a checkpoint; use --checkpoint-every for fewer, and --out for the folder"
_RESUME = "use: evolute resume runs/NAME"
_EVALUATE = "every interval ends with an evaluation; use --interval 10000 and --episodes 5"
_PBT = "use --interval 10000, the environment steps between two evolutions"
_NUMBER = "use --mix adam=8, the slots of each optimizer kind"
_ENVS = "each member steps one environment; use --mix adam=4 for more members"

# From the name, without dashes at its beginning, to what one types here.
_POINTERS = {
    _ENV: "env env-id env-name environment env-ids task gym-id domain",
    _RUN: "run run-dir folder path checkpoint checkpoint-path load-from model model-path logdir-in",
    _RATE: "lr learning-rate pi-lr q-lr actor-lr critic-lr policy-lr lr-actor lr-critic actor-learning-rate "
    "critic-learning-rate q-learning-rate policy-learning-rate alpha stepsize step-size",
    "use --discount 0.99": "gamma discount-factor",
    "use --steps 1000000, the environment steps of each member": "total-timesteps timesteps n-timesteps num-timesteps "
    "total-steps num-steps max-steps max-timesteps n-steps total-env-steps num-env-steps stop-timesteps training-steps "
    "iterations epochs stop-iters",
    _ENVS: "num-envs n-envs nenvs env-num num-env-runners num-workers n-workers vec-env num-cpu",
    _RATIO: "gradient-steps train-freq train-frequency update-every updates-per-step utd utd-ratio num-updates "
    "training-intensity",
    "use --target-noise 0.2": "policy-noise target-policy-noise target-policy-smoothing smooth-target-policy",
    "use --target-noise-clip 0.5": "noise-clip",
    "use --exploration-noise 0.1": "expl-noise act-noise action-noise noise-std noise-type explore-noise",
    "use --policy-delay 2": "policy-frequency policy-freq delay actor-delay target-network-frequency target-update-interval",
    "SAC tunes its temperature by itself; use --temperature-learning-rate 0.0003": "ent-coef entropy-coef entropy-coefficient "
    "target-entropy autotune init-temperature alpha-lr temperature",
    "use --tau 0.005": "polyak soft-target-tau target-tau",
    "use --learning-starts 10000": "start-steps start-timesteps warmup warmup-steps warm-up-steps random-steps update-after "
    "initial-random-steps num-steps-sampled-before-learning-starts",
    "use --batch-size 256": "batch minibatch-size mini-batch-size train-batch-size bs",
    "use --buffer-size 1000000": "replay-size buffer replay-buffer-size memory-size capacity replay-capacity",
    _LAYERS: "hid hidden-size hidden-sizes hidden-dim hidden-layers net-arch layers l policy-kwargs fcnet-hiddens num-layers",
    _ALGORITHM: "algo algorithm alg agent",
    _MIX: "optimizer optim optimizer-class kind kinds",
    _OPTIMIZER: "damping momentum weight-decay eps beta1 beta2 betas adam-eps",
    _NUMBER: "pop-size population population-size num-samples n-members members num-agents",
    _PBT: "perturbation-interval pbt-interval evolve-every exploit-interval",
    "use --truncation 0.2": "quantile-fraction",
    "use --factors 0.8 1.2": "perturbation-factors",
    "use --perturb actor_learning_rate critic_learning_rate": "hyperparams-to-perturb hyperparam-mutations",
    _EVALUATE: "eval-freq eval-frequency eval-interval evaluation-interval evaluate-every",
    "use --episodes 5": "eval-episodes n-eval-episodes num-eval-episodes num-test-episodes evaluation-duration n-episodes",
    _DEVICE: "device cuda gpu num-gpus cpu use-cuda no-cuda gpu-id platform",
    _THREADS: "num-threads threads n-jobs torch-num-threads num-cpus",
    "use --seed 0, or --seeds 0 1 2 for several": "random-seed n-seeds num-seeds rng-seed",
    "use --out PATH": "log-dir logdir log-folder output output-dir save-dir save-path results-dir storage-path exp-name "
    "experiment-name name run-name data-dir f o",
    "use --config run.toml": "conf conf-file config-file hyperparams hyperparameters params yaml-file",
    _SAVE: "save-model save-freq save-frequency checkpoint-freq checkpoint-frequency save-every save-interval upload-model",
    _RESUME: "resume resume-path load load-model restore trained-agent continue i",
    "use --track tensorboard": "tensorboard tensorboard-log",
    "use --track wandb": "wandb wandb-project-name wandb-entity wandb-project",
    _FILM: "capture-video render record-video render-mode save-video",
    _RECORDS: "log-interval verbose torch-deterministic",
    "use --quiet to print nothing": "silent no-progress q",
    _NORMALIZE: "normalize norm-obs norm-reward normalize-obs normalize-observation normalize-reward vecnormalize",
}
POINTERS = {name: pointer for pointer, names in _POINTERS.items() for name in names.split()}
