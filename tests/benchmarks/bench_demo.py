"""How long a visitor of the Space waits for a search while others classify with long lists of labels.

    python tests/benchmarks/bench_demo.py --model MODEL --index INDEX --file SHAPE [--app APP …] [--clients 1 20]

Each `--app` (this checkout's by default; an older checkout's beside it, to compare) is started with its own checkout's
package and an empty cache of labels. First its searches are timed while nobody else is there, then while two visitors
classify with Objaverse-LVIS, 1,156 labels in 64 prompts. A search that does not answer within `--patience` seconds
counts as that long, and is marked. The last column tells how much slower the busy server answers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

APP = Path(__file__).resolve().parents[2] / "spaces_demo" / "app.py"
LVIS = "Objaverse-LVIS (1,156)"
PROMPTS, OTHERS = "64 prompts (ULIP-2's protocol)", 2
WORDS = ("chair", "lamp", "sofa", "tree", "car", "bottle", "window", "bed", "cup", "house")
SETTLE_SECONDS = 5.0


def start(app: str, args: argparse.Namespace, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A server with its own cache and temporary files, and its address."""
    server = subprocess.Popen(
        [sys.executable, app, "--model", args.model, "--index", args.index],
        env=os.environ
        | {"HF_HOME": str(folder / "hub"), "GRADIO_TEMP_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
        | {"PYTHONPATH": str(Path(app).resolve().parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    for line in server.stdout:
        if "Running on local URL" in line:
            return server, line.split()[-1]
    sys.exit(f"{app} did not start")


def search(client: Client, axis: str, number: int, patience: float) -> float:
    """Seconds until the answer, at most `patience`."""
    begin = time.perf_counter()
    job = client.submit(f"a {WORDS[number % len(WORDS)]} {number}", None, None, axis, 12, api_name="/search")
    try:
        job.result(timeout=patience)
    except TimeoutError:
        job.cancel()
        return patience
    return time.perf_counter() - begin


def measure(address: str, axis: str, clients: int, rounds: int, patience: float) -> list[float]:
    """Seconds of each of `rounds` searches of each of so many visitors at once."""
    visitors = [Client(address, verbose=False) for _ in range(clients)]
    ready = threading.Barrier(clients)

    def visit(place: int) -> list[float]:
        ready.wait()
        return [search(visitors[place], axis, place * rounds + number, patience) for number in range(rounds)]

    with ThreadPoolExecutor(clients) as pool:
        return [seconds for visited in pool.map(visit, range(clients)) for seconds in visited]


def describe(seconds: list[float], patience: float) -> str:
    """Median, 95th percentile and maximum; a `>` where patience ended."""
    ordered = sorted(seconds)
    chosen = (statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], ordered[-1])
    return " | ".join(f"{'>' if value >= patience else ''}{value:.2f} s" for value in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--file", required=True, help="3D file that the two others classify")
    parser.add_argument("--app", action="append", help="app.py of a checkout; may be given several times")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=3, help="searches of each client, one after another")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds")
    args = parser.parse_args()
    print(
        "| app | clients | others | median | 95 % | longest | busy / idle, by median |\n|---|---|---|---|---|---|---|"
    )
    for app in args.app or [str(APP)]:
        with tempfile.TemporaryDirectory() as folder:
            server, address = start(app, args, Path(folder))
            try:
                report(app, address, args)
            finally:
                server.kill()
                server.wait()


def report(app: str, address: str, args: argparse.Namespace) -> None:
    """Prints the rows of one server."""
    client = Client(address, verbose=False)
    # older servers know no "auto"
    described: Any = client.view_api(print_info=False, return_format="dict")["named_endpoints"]["/search"][
        "parameters"
    ]
    axis = "auto" if "auto" in str(described) else "y"
    search(client, axis, 0, 600)  # the first one warms up
    idle = {count: measure(address, axis, count, args.rounds, args.patience) for count in args.clients}
    for _ in range(OTHERS):
        Client(address, verbose=False).submit(handle_file(args.file), axis, LVIS, "", PROMPTS, api_name="/classify")
    time.sleep(SETTLE_SECONDS)
    for count in args.clients:
        busy = measure(address, axis, count, args.rounds if count == 1 else 1, args.patience)
        ratio = statistics.median(busy) / statistics.median(idle[count])
        print(f"| {app} | {count} | none | {describe(idle[count], args.patience)} | |", flush=True)
        print(f"| {app} | {count} | two with LVIS | {describe(busy, args.patience)} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
