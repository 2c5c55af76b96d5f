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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from measuring import BIN, Row, environment, last_json, parser, report, timed, workplace

PLAIN = Path(__file__).with_name("plain_pyfunc.py")
MAKE = """
import sys
from pathlib import Path
import mlflow, torch
from transfer_model.classifier import save
from transfer_model.description import ModelDescription, Unknown
from transfer_model.network import NetworkSpec, build
from transfer_model.novelty import Novelty
from transfer_model.preprocessing import Preprocessing
from transfer_registry.packaging import log_model, signature

spec = NetworkSpec("resnet18", 2, 0.0, 224)
mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
described = ModelDescription(
    spec, ("ants", "bees"), Preprocessing(224, 0.875, "bilinear", mean, std), "float32", 1.0,
    Unknown(0.5, 0.05)
)
Path("model").mkdir()
save(Path("model"), described, build(spec), Novelty(torch.randn(244, 512)))
run = mlflow.MlflowClient().create_run("0")
ours = log_model(Path("model"), "ours", run.info.run_id)
plain = mlflow.pyfunc.log_model(name="plain", python_model=sys.argv[1], signature=signature(described))
print('{"ours": "%s", "plain": "%s"}' % (ours.model_uri, plain.model_uri))
"""
IN_PROCESS = """
import json, statistics, sys, time
from pathlib import Path
from transfer_model.classifier import Classifier

classifier = Classifier.load(Path("model"))
photos = [Path(line) for line in sys.stdin.read().split("\\n") if line]
seconds = []
for photo in photos:
    content = photo.read_bytes()
    start = time.perf_counter()
    classifier.probabilities([content])
    seconds.append(time.perf_counter() - start)
print(json.dumps({"p50": statistics.median(seconds[len(seconds) // 5:])}))
"""


def main() -> None:
    """Makes both models, serves them in turn, and asks them."""
    options = _options()
    photos = sorted((options.photos / "val").glob("*/*.jpg"))
    chosen = [photos[index % len(photos)] for index in range(options.requests)]
    with workplace(options.work) as folder:
        variables = environment(options.threads)
        uris = last_json(timed([sys.executable, "-c", MAKE, PLAIN], folder, variables))
        (folder / "photos.txt").write_text("\n".join(map(str, chosen)))
        command = ["sh", "-c", f'"{sys.executable}" -c "$0" < photos.txt', IN_PROCESS]
        in_process = last_json(timed(command, folder, variables))["p50"]
        bodies = [_body(path) for path in chosen]
        mlflow = [BIN / "mlflow", "models", "serve", "--env-manager", "local", "-m"]
        servers = {
            "a plain pyfunc, `mlflow models serve`": [*mlflow, uris["plain"]],
            "ours, `mlflow models serve`": [*mlflow, uris["ours"]],
            "ours, `platform serve`": [BIN / "platform", "serve", uris["ours"]],
        }
        rows: list[Row] = [{"what": "ours, in this process: decode and forward", "p50 ms": 1000 * in_process}]
        for name, served in servers.items():
            rows.append({"what": name, **_measured(served, folder, variables, bodies, options, in_process)})
    report(options, _compared(rows), [f"{options.requests} requests a figure, after as many / 5 to warm up"])


def _compared(rows: Sequence[Row]) -> list[Row]:
    """With the throughput as a multiple of the plain pyfunc's."""
    plain = next(row for row in rows if "plain" in str(row["what"]))
    columns = [column for column in plain if column.endswith("clients, a second")]
    return [
        {
            **row,
            **{
                f"x {column}": float(row[column]) / float(plain[column])
                for column in columns
                if column in row
            },
        }  # type: ignore[arg-type]
        for row in rows
    ]


def _measured(
    command: Sequence[object],
    folder: Path,
    variables: dict[str, str],
    bodies: Sequence[bytes],
    options: Namespace,
    in_process: float,
) -> Row:
    with _serving(command, folder, variables) as port:
        _ask(port, bodies[: len(bodies) // 5 + 1], 1)
        seconds, _ = _ask(port, bodies, 1)
        p50 = statistics.median(seconds)
        row: dict[str, object] = {"p50 ms": 1000 * p50, "x in-process": p50 / in_process}
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
    return arguments.parse_args()


if __name__ == "__main__":
    main()
