"""How members had best share one core: python benchmarks/placements.py

Eight members of a kind, updates alone, pinned to one core as a worker or a cell of an experiment is. The ways take turns, so only
their ratios mean something.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bench import SMALL, markdown, median_of_turns, ms, population, say, update_only

MEMBERS = 8
KINDS = ("adam", "diag_ggn", "kfac", "kfac_empirical", "sac:adam")
SIZES = {"64-64, batches of 128": (SMALL, KINDS), "400-300, batches of 256": ({}, KINDS[:1])}


def main():
    from evolute.commands.compile_cache import remember_compiled_programs
    from evolute.training.processes import shares
    from evolute.training.serving import take_cores

    remember_compiled_programs()
    take_cores(MEMBERS, shares(2)[0][:1])
    rows = []
    for size, (settings, kinds) in SIZES.items():
        for kind in kinds:
            say(f"{size}, {kind}")
            hosts = {way: population(kind, MEMBERS, placement=way, **settings) for way in ("map", "vmap")}
            found = median_of_turns({way: update_only(host) for way, host in hosts.items()}, 5)
            rows.append((size, f"`{kind}`", ms(found["map"]), ms(found["vmap"]), f"{found['vmap'] / found['map']:.2f}"))
            for host in hosts.values():
                host.close()
    print(markdown(("networks", "kind", "`map`, ms per member", "`vmap`, ms per member", "ratio"), rows))


if __name__ == "__main__":
    main()
