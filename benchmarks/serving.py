"""Latency and throughput of a served model, compared with a minimal pyfunc.

ResNet-18 with random weights at 224 pixels. Both models are served by `mlflow models serve` with the same
number of threads; the platform's also by `platform serve`. Each request contains one photograph and is sent
by threads of this process over persistent connections.

    python benchmarks/serving.py --photos hymenoptera_data
    python benchmarks/serving.py --photos hymenoptera_data --requests 8        # smoke test
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import BIN, Row, environment, last_json_line, parser, report, run_process, work_folder

PLAIN = Path(__file__).with_name("plain_pyfunc.py")
MODEL = Path("model")
"""Saved model of the platform, in the working folder of the measured processes."""


def main() -> None:
    """Builds, serves and measures both models; with `--worker`, runs one of these steps."""
    options = _options()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    with work_folder(options.work) as folder:
        variables = environment(options.threads)
        worker = [sys.executable, Path(__file__).resolve(), "--photos", options.photos]
        worker += ["--requests", options.requests, "--worker"]
        uris = last_json_line(run_process([*worker, "build"], folder, variables))
        in_process = last_json_line(run_process([*worker, "classify"], folder, variables))["p50"]
        bodies = [_body(path) for path in _request_photos(options)]
        mlflow = [BIN / "mlflow", "models", "serve", "--env-manager", "local", "-m"]
        servers = {
            "minimal pyfunc, `mlflow models serve`": [*mlflow, uris["plain"]],
            "platform, `mlflow models serve`": [*mlflow, uris["platform"]],
            "platform, `platform serve`": [BIN / "platform", "serve", uris["platform"]],
        }
        measured = [
            {"server": name, **_measure(command, folder, variables, bodies, options, in_process)}
            for name, command in servers.items()
        ]
    baseline = {"server": "platform, in process: decode and forward", "p50 ms": 1000 * in_process}
    note = f"{options.requests} requests per value, after a fifth of them as warm-up"
    report(options, [baseline, *_relative(measured)], [note])


def build(_: Namespace) -> dict[str, str]:
    """Logs both models in the current folder; returns their URIs."""
    import mlflow
    import torch

    from transfer_model.classifier import save
    from transfer_model.model_json import ModelConfig, OodThreshold
    from transfer_model.network import NetworkSpec, build_network
    from transfer_model.ood import OodScorer
    from transfer_model.preprocessing import Preprocessing
    from transfer_registry.packaging import log_model, signature

    spec = NetworkSpec("resnet18", 2, 0.0, 224)
    preprocessing = Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    config = ModelConfig(spec, ("ants", "bees"), preprocessing, "float32", 1.0, OodThreshold(0.5, 0.05))
    MODEL.mkdir()
    save(MODEL, config, build_network(spec), OodScorer(torch.randn(244, 512)))
    run = mlflow.MlflowClient().create_run("0")
    platform = log_model(MODEL, "platform", run.info.run_id)
    plain = mlflow.pyfunc.log_model(
        name="plain", python_model=str(PLAIN), signature=signature(config), pip_requirements=[]
    )
    return {"platform": platform.model_uri, "plain": plain.model_uri}


def classify(options: Namespace) -> dict[str, float]:
    """Classifies the photographs one by one in this process; returns the median of the seconds."""
    from transfer_model.classifier import Classifier

    classifier = Classifier.load(MODEL)
    seconds = []
    for photo in _request_photos(options):
        content = photo.read_bytes()
        start = time.perf_counter()
        classifier.predict_proba([content])
        seconds.append(time.perf_counter() - start)
    return {"p50": statistics.median(seconds[len(seconds) // 5 :])}


WORKERS: dict[str, Callable[[Namespace], object]] = {"build": build, "classify": classify}


def _request_photos(options: Namespace) -> list[Path]:
    """Returns one photograph per request; they repeat if necessary."""
    photos = sorted((options.photos / "val").glob("*/*.jpg"))
    return [photos[index % len(photos)] for index in range(options.requests)]


def _relative(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """Adds the throughput relative to the first row, the minimal pyfunc."""
    columns = [column for column in rows[0] if column.endswith("clients, requests/s")]
    return [{**row, **{f"x {column}": row[column] / rows[0][column] for column in columns}} for row in rows]


def _measure(
    command: Sequence[object],
    folder: Path,
    variables: dict[str, str],
    bodies: Sequence[bytes],
    options: Namespace,
    in_process: float,
) -> dict[str, Any]:
    with _serving(command, folder, variables) as port:
        _send(port, bodies[: len(bodies) // 5 + 1], 1)
        seconds, _ = _send(port, bodies, 1)
        p50 = statistics.median(seconds)
        row: dict[str, Any] = {"p50 ms": 1000 * p50, "x in-process": p50 / in_process}
        for clients in options.clients:
            _send(port, bodies[: len(bodies) // 5 + 1], clients)
            _, total = _send(port, bodies, clients)
            row[f"{clients} clients, requests/s"] = len(bodies) / total
    return row


def _send(port: int, bodies: Sequence[bytes], clients: int) -> tuple[list[float], float]:
    """Sends the requests with concurrent clients; returns the seconds of each, and in total."""

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        seconds = []
        for body in bodies[number::clients]:
            start = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise SystemExit(f"the server responded with {response.status}: {response.read()[:500]!r}")
            response.read()
            seconds.append(time.perf_counter() - start)
        connection.close()
        return seconds

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        by_client = list(pool.map(client, range(clients)))
    return [second for seconds in by_client for second in seconds], time.perf_counter() - start


@contextmanager
def _serving(command: Sequence[object], folder: Path, variables: dict[str, str]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    words = [*map(str, command), "--port", str(port)]
    with (folder / "server.txt").open("w") as output:
        server = subprocess.Popen(
            words, cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_ready(server, port)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the server exited; run with --work and read server.txt in the run folder")


def _body(photo: Path) -> bytes:
    return json.dumps({"inputs": [{"image": base64.b64encode(photo.read_bytes()).decode()}]}).encode()


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--requests", type=int, default=200)
    arguments.add_argument("--clients", type=int, nargs="+", default=[4])
    arguments.add_argument("--worker", choices=WORKERS, help="internal")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
