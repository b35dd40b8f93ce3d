"""Settings of every test: CPU, strict dtypes, and compiled programs kept between runs."""

import os
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As in a run: LAPACK's threads would wait for each other, and a fit of PB2 takes ten times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Most of the suite's time is compilation of tiny programs: LLVM's optimisations gain nothing there, and XLA's older way to emit
# a fusion's code takes a quarter of the time. `make test-slow` compiles as a run does.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
# In the environment, for the processes that tests start, too; and a command in this process keeps to it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import jax
import pytest
from hypothesis import settings

import shared_programs
from shared_programs import own_programs as own_programs

# Examples differ from run to run elsewhere; here a failure must be seen again by whoever looks at it.
settings.register_profile("evolute", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("evolute")


def pytest_configure(config: pytest.Config) -> None:
    # Where the tests run under nohup, it would be ignored in every process that they start, too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # jax_numpy_rank_promotion stays as it is: a bias is added to a batch by rank promotion in every layer.
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    # One device, whatever comes first: each further one would compile every program for itself. The commands have more.
    jax.local_devices()
    shared_programs.share()
    # Parallel workers may read an entry that another one is still writing; JAX then compiles, and says so.
    config.addinivalue_line("filterwarnings", "ignore:.*persistent compilation cache.*:UserWarning")
    # Most tests train for fewer steps than an episode has, in environments of any length.
    config.addinivalue_line("filterwarnings", r"ignore:(the environment|an episode of|no episode of) '.*:UserWarning")
    # Many train for one interval, or with settings that some of their strategies and mixes do not use.
    config.addinivalue_line("filterwarnings", "ignore:(nobody evolves in this run|.* it has no effect; ).*:UserWarning")


# Files that take longest come first: each is one worker's, and at the end it would keep the others waiting.
LONGEST = (
    "workers",
    "experiments",
    "algorithms_contract",
    "options",
    "resume",
    "engine",
    "endings",
    "norm_constraint",
    "making",
    "isolation",
    "spaces",
    "untrusted",
    "faults",
    "optimizers_contract",
    "quarantine",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture
def x64():
    """Double precision, for oracles."""
    with jax.enable_x64(True):
        yield
