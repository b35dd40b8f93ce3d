"""What an update costs with other networks than the plain one: python benchmarks/structures.py [--full]

--full adds 256-256 and the last kind; each structure of a kind takes a program of its own, which compiles for a minute.
Two members of each kind, one on each core; the structures of a kind take turns, so only their ratios mean something.
`bench.py` says what an update of the plain network costs beside other kinds.
"""

import os
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bench import KINDS, SMALL, markdown, median_of_turns, ms, population, say, update_only

STRUCTURES = {
    "relu": {},
    "tanh": {"activation": "tanh"},
    "elu": {"activation": "elu"},
    "relu, layer_norm": {"layer_norm": True},
    "simba": {"network": "simba"},
}
SIZES = {"64-64, batches of 128": SMALL, "256-256, batches of 256": {"actor_layers": (256, 256), "critic_layers": (256, 256)}}


def main():
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.training import placement

    remember_compiled_programs()
    placement.use_all_cores(2)
    rows, full = [], "--full" in sys.argv[1:]
    for size, settings in list(SIZES.items())[: None if full else 1]:
        for kind in (*(KINDS if full else KINDS[:-1]), "sac:adam"):
            say(f"{size}, {kind}")
            hosts = {name: population(kind, 2, **settings, **structure) for name, structure in STRUCTURES.items()}
            found = median_of_turns({name: update_only(host, 60) for name, host in hosts.items()}, 7)
            plain = found["relu"]
            rows.append((size, f"`{kind}`", ms(plain), *(f"{found[name] / plain:.2f}" for name in list(STRUCTURES)[1:])))
            for host in hosts.values():
                host.close()
    print(markdown(("networks", "kind", "plain, ms", *(f"`{name}`" for name in list(STRUCTURES)[1:])), rows))


if __name__ == "__main__":
    main()
