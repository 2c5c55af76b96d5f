"""The time of an answer over HTTP, and how many a second, against a pyfunc as tutorials write it.

ResNet-18 with random weights, which cost the same, at 224 pixels. Both models are served by
`mlflow models serve` with the same number of threads; ours also by `platform serve`. One photograph a
request, sent by threads of this process over connections that are kept open.

    python benchmarks/serving.py --photos hymenoptera_data
    python benchmarks/serving.py --photos hymenoptera_data --requests 8        # a small form
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

from measuring import BIN, Row, environment, last_json, parser, report, timed, workplace

PLAIN = Path(__file__).with_name("plain_pyfunc.py")
MODEL = Path("model")
"""Ours, as it is saved, in the folder of the measured processes."""


def main() -> None:
    """Makes both models, serves them in turn, and asks them; or is one of the processes that do so."""
    options = _options()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    with workplace(options.work) as folder:
        variables = environment(options.threads)
        command = [sys.executable, Path(__file__).resolve(), "--photos", options.photos]
        command += ["--requests", options.requests, "--worker"]
        uris = last_json(timed([*command, "make"], folder, variables))
        in_process = last_json(timed([*command, "ask"], folder, variables))["p50"]
        bodies = [_body(path) for path in _chosen(options)]
        mlflow = [BIN / "mlflow", "models", "serve", "--env-manager", "local", "-m"]
        servers = {
            "a plain pyfunc, `mlflow models serve`": [*mlflow, uris["plain"]],
            "ours, `mlflow models serve`": [*mlflow, uris["ours"]],
            "ours, `platform serve`": [BIN / "platform", "serve", uris["ours"]],
        }
        measured = [
            {"what": name, **_measured(served, folder, variables, bodies, options, in_process)}
            for name, served in servers.items()
        ]
    alone = {"what": "ours, in one process: decode and forward", "p50 ms": 1000 * in_process}
    note = f"{options.requests} requests a figure, after as many / 5 to warm up"
    report(options, [alone, *_compared(measured)], [note])


def make(_: Namespace) -> dict[str, str]:
    """Logs both models in the current folder: their URIs."""
    import mlflow
    import torch

    from transfer_model.classifier import save
    from transfer_model.config import ModelConfig, OodThreshold
    from transfer_model.network import NetworkSpec, build_network
    from transfer_model.ood import OodScorer
    from transfer_model.preprocessing import Preprocessing
    from transfer_registry.packaging import log_model, signature

    spec = NetworkSpec("resnet18", 2, 0.0, 224)
    prepare = Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    description = ModelConfig(spec, ("ants", "bees"), prepare, "float32", 1.0, OodThreshold(0.5, 0.05))
    MODEL.mkdir()
    save(MODEL, description, build_network(spec), OodScorer(torch.randn(244, 512)))
    run = mlflow.MlflowClient().create_run("0")
    ours = log_model(MODEL, "ours", run.info.run_id)
    plain = mlflow.pyfunc.log_model(
        name="plain", python_model=str(PLAIN), signature=signature(description), pip_requirements=[]
    )
    return {"ours": ours.model_uri, "plain": plain.model_uri}


def ask(options: Namespace) -> dict[str, float]:
    """Classifies the photographs in this process, one after the other: the median of their seconds."""
    from transfer_model.classifier import Classifier

    classifier = Classifier.load(MODEL)
    seconds = []
    for photo in _chosen(options):
        content = photo.read_bytes()
        start = time.perf_counter()
        classifier.predict_proba([content])
        seconds.append(time.perf_counter() - start)
    return {"p50": statistics.median(seconds[len(seconds) // 5 :])}


WORKERS: dict[str, Callable[[Namespace], object]] = {"make": make, "ask": ask}


def _chosen(options: Namespace) -> list[Path]:
    """As many photographs as there are requests, some of them more than once."""
    photos = sorted((options.photos / "val").glob("*/*.jpg"))
    return [photos[index % len(photos)] for index in range(options.requests)]


def _compared(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """With the throughput as a multiple of that of the first, the plain pyfunc."""
    columns = [column for column in rows[0] if column.endswith("clients, a second")]
    return [{**row, **{f"x {column}": row[column] / rows[0][column] for column in columns}} for row in rows]


def _measured(
    command: Sequence[object],
    folder: Path,
    variables: dict[str, str],
    bodies: Sequence[bytes],
    options: Namespace,
    in_process: float,
) -> dict[str, Any]:
    with _serving(command, folder, variables) as port:
        _ask(port, bodies[: len(bodies) // 5 + 1], 1)
        seconds, _ = _ask(port, bodies, 1)
        p50 = statistics.median(seconds)
        row: dict[str, Any] = {"p50 ms": 1000 * p50, "x in-process": p50 / in_process}
        for clients in options.clients:
            _ask(port, bodies[: len(bodies) // 5 + 1], clients)
            _, whole = _ask(port, bodies, clients)
            row[f"{clients} clients, a second"] = len(bodies) / whole
    return row


def _ask(port: int, bodies: Sequence[bytes], clients: int) -> tuple[list[float], float]:
    """Seconds of each request, and of all of them, sent by so many clients at once."""

    def client(number: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        seconds = []
        for body in bodies[number::clients]:
            start = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise SystemExit(f"the server answers {response.status}: {response.read()[:500]!r}")
            response.read()
            seconds.append(time.perf_counter() - start)
        connection.close()
        return seconds

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(client, range(clients)))
    return [second for seconds in each for second in seconds], time.perf_counter() - start


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
        _until_it_listens(server, port)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the server ended; --work keeps its output in server.txt")


def _body(photo: Path) -> bytes:
    return json.dumps({"inputs": [{"image": base64.b64encode(photo.read_bytes()).decode()}]}).encode()


def _options() -> Namespace:
    arguments = parser(__doc__)
    arguments.add_argument("--requests", type=int, default=200)
    arguments.add_argument("--clients", type=int, nargs="+", default=[4])
    arguments.add_argument("--worker", choices=WORKERS, help="used by the benchmark itself")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
