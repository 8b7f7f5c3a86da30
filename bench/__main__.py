"""`python -m bench [--runs N] [--only NAME]... [--baseline]`; see `make bench`."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from bench import report
from bench.lxd import Lxd
from bench.operations import SCENARIOS, Scenario, settle
from bench.pylxc import Pylxc
from bench.server import Server
from bench.sources import Sources
from tests.support.images import image_files
from tests.support.leaks import remove_dead_groups


def measure(scenario: Scenario, servers: list[Server], runs: int) -> dict[str, dict[str, list[float]]]:
    """Return the samples of a scenario by operation and server, taken in turn: A B A B."""
    samples: dict[str, dict[str, list[float]]] = {}
    for server in servers:
        scenario.prepare(server)
    for run in range(runs):
        for server in servers:
            settle()
            for operation, value in scenario.sample(server, run).items():
                samples.setdefault(operation, {}).setdefault(server.name, []).append(value)
        print(".", end="", file=sys.stderr, flush=True)
    for server in servers:
        scenario.finish(server)
    return samples


def main() -> None:
    """Measure and print; the status tells whether every budget was met."""
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--runs", type=int, help="samples of each scenario instead of its own number")
    parser.add_argument("--only", action="append", choices=[s.name for s in SCENARIOS])
    options = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        stack.callback(remove_dead_groups)
        servers: list[Server] = []
        sources = Sources()
        stack.callback(sources.close)
        sources.make()
        images = {"debian": image_files("debian/12"), "busybox": image_files("busybox")}
        for kind in (Pylxc, Lxd):
            server = kind()
            stack.callback(server.close)
            servers.append(server)
            server.preseed()
            sources.serve(server)
            for alias, files in images.items():
                server.run("image", "import", *files, "--alias", alias)
        for scenario in SCENARIOS:
            if options.only and scenario.name not in options.only:
                continue
            print(f"{scenario.name} ", end="", file=sys.stderr, flush=True)
            samples |= measure(scenario, servers, options.runs or scenario.runs)
            print(file=sys.stderr)
    rows = report.table(samples)
    print(report.plain(rows), report.machine(), report.markdown(rows), sep="\n\n")
    sys.exit(any(row[-1] == "MISSED" for row in rows))


if __name__ == "__main__":
    main()
