"""Let many clients at once send images to `simmat serve` and click in them: is an answer lost, how long does each take?

    python benchmarks/serve_clients.py BUNDLE IMAGE [--clients 50] [--clicks 20] [--images 10] [--json FILE]

Each client sends one of `--images` variants of IMAGE (a file of one source: png, tif or npy), which differ in their
noise, clicks at places of its own, and asks for every object once. Clicks are sent one after the other, without a
pause, so the machine is never idle. Every mask is compared with that of a client alone. An answer is lost if it is an
error, or another mask. On a machine that has other work, look at the processor seconds of the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
from measuring import parser_of
from simmat_plugin_annotate.client import Client

from simmat.io.images import read_image, write_image

Times = dict[str, list[float]]


def variants(image: Path, folder: Path, count: int) -> list[Path]:
    """Write copies of an image that differ in their lowest bits."""
    source = read_image(image)
    planes = source.planes
    files = [folder / f"{number}.tif" for number in range(count)]
    for number, file in enumerate(files):
        noisy = planes ^ np.random.default_rng(number).integers(
            0, 2, planes.shape
        ).astype(planes.dtype)
        # which may state the unit
        write_image(file, noisy, description=source.description)
    return files


def work(address: str, file: Path, seed: int, clicks: int, times: Times) -> list[bytes]:
    """Be one client; return its masks."""

    def timed(what: str, ask: object, *given: object) -> object:
        begun = time.perf_counter()
        found = ask(*given)  # type: ignore[operator]
        times[what].append(time.perf_counter() - begun)
        return found

    client = Client(address)
    timed("send and encode", client.set_image, file)
    height, width = client.size_hw
    places = np.random.default_rng(seed).uniform(
        (1, 1), (width - 1, height - 1), (clicks, 2)
    )
    masks = [
        timed("click", client.predict, [tuple(place)])[0] for place in places.tolist()
    ]  # type: ignore[index]
    masks += timed("every object", client.everything)  # type: ignore[operator]
    return [np.packbits(one["mask"]).tobytes() for one in masks]


def measure(
    address: str, server: psutil.Process, files: list[Path], clients: int, clicks: int
) -> dict[str, object]:
    """Run all clients at once, then some alone for comparison; return what came of it."""
    times: Times = defaultdict(list)
    answers: dict[int, list[bytes]] = {}
    errors: list[str] = []

    def one(number: int) -> None:
        try:
            answers[number] = work(
                address, files[number % len(files)], number, clicks, times
            )
        except Exception as error:
            errors.append(f"client {number}: {type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=one, args=(number,)) for number in range(clients)
    ]
    begun, before = time.perf_counter(), server.cpu_times()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, after = time.perf_counter() - begun, server.cpu_times()
    alone: Times = defaultdict(list)
    checked = list(answers)[:: max(len(answers) // 10, 1)]
    other = sum(
        work(address, files[number % len(files)], number, clicks, alone)
        != answers[number]
        for number in checked
    )
    return {
        "clients": clients,
        "seconds": round(seconds, 1),
        "server_cpu_seconds": round(
            after.user + after.system - before.user - before.system, 1
        ),
        "answers": sum(map(len, times.values())),
        "errors": errors,
        "compared": len(checked),
        "other_masks": other,
        "times_s": {what: _percentiles(found) for what, found in times.items()},
        "alone_s": {what: _percentiles(found) for what, found in alone.items()},
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    return {
        name: round(float(np.percentile(values, at)), 4)
        for name, at in (("p50", 50), ("p95", 95), ("max", 100))
    }


def main() -> None:
    """Start a server, measure, and stop it."""
    parser = parser_of(__doc__)
    parser.add_argument("bundle")
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    command = [sys.executable, "-m", "simmat", "serve", given.bundle, "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        files = variants(given.image, Path(folder), given.images)
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            found = measure(
                address, psutil.Process(server.pid), files, given.clients, given.clicks
            )
        finally:
            server.terminate()
            server.wait(30)
    print(json.dumps(found, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if found["errors"] or found["other_masks"]:
        raise SystemExit("answers were lost")


if __name__ == "__main__":
    main()
