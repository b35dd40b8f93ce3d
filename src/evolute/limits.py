"""The most that a run, and a file that describes one, may ask for.

Far beyond what trains anywhere, and low enough that a file from a stranger cannot make a machine allocate without end.
"""

MEMBERS = 1_000
LAYERS = 16
UNITS = 8_192
# Numbers that an environment observes, or its action has.
INPUTS = 1_000_000
# Weights between the hidden layers of one network: half a gigabyte.
WEIGHTS = 2**27
BATCH = 100_000
BUFFER = 100_000_000
STEPS = 10**15
# Steps of a run: there is at most one update a step, and the compiled programs count updates in 32 bits.
RUN_STEPS = 2 * 10**9
EPISODES = 100_000
REWARD_SCALE = 1e12
# Steps that a target joins.
N_STEP = 1_000
# Faults of an environment that a member tolerates in an interval: each is recorded.
FAULTS = 10_000
# Seconds: a day.
TIME_LIMIT = 86_400
# Updates between two measurements, inversions or actor updates: the compiled programs count in 32 bits.
UPDATES = 10**9
# Batches that are drawn at once.
BURN_IN = 1_000
# Entries of a list, such as the factors of exploration.
ENTRIES = 100
# Characters of a name, or of another text in a configuration.
NAME = 200
# Characters of a path in a configuration.
PATH = 400

# Bytes of a file.
CONFIG_BYTES = 128 * 1024
DESCRIPTION_BYTES = 1024**2
RESULT_BYTES = 16 * 1024**2
RECORDS_BYTES = 128 * 1024**2
POLICY_BYTES = 1024**3
# It holds a copy of both records.
MANIFEST_BYTES = 3 * RECORDS_BYTES
# Characters of a line: dotted keys take TOML's parser a time that grows with their square.
CONFIG_LINE = 500
RECORDS_LINE = 64 * 1024
# Bytes that name and place the arrays of a safetensors file.
HEADER_BYTES = 100_000
# Tables in tables in a configuration: optimizers.kfac.actor.clip needs three.
DEPTH = 8
