"""Worker processes for functions that would block each other in threads.

The executors of joblib and of the standard library read the results in a thread of their own. If that thread fails,
for example because Python turns a warning into an error, their callers wait forever. Here, the thread that waits for
a result reads it from the pipe of one process, and this pipe closes when the process ends in any way.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from transfer_model.safe_path import safe_environment

_PARENT_CHECK_SECONDS = 1.0
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from transfer_platform.data import worker_processes as workers; "
    "workers.serve(int(sys.argv[1]))"
)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class WorkerProcesses(ThreadPoolExecutor):
    """Executor whose functions run in `count` processes, which `shutdown` kills.

    Unlike those of the standard library, the processes do not run the caller's script. Functions, arguments and
    results are pickled. If a process dies, the future raises `BrokenExecutor`.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, thread_name_prefix="worker process")
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()  # as many as threads: a thread always finds one
        try:
            with _blocked_interrupt():
                for _ in range(count):
                    self._workers.append(_Worker())
                    self._idle.put(self._workers[-1])
        except BaseException:
            self.shutdown()
            raise

    def submit(
        self, function: Callable[_Parameters, _Result], /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Future[_Result]:
        """Calls a function in an idle process."""
        return super().submit(self._call, function, args, kwargs)

    def _call(self, function: Callable[..., _Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Result:
        worker = self._idle.get()
        try:
            return worker.call(function, args, kwargs)
        finally:
            self._idle.put(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:
        """Kills the processes; unfinished calls raise `BrokenExecutor` or are cancelled."""
        for worker in self._workers:
            worker.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._workers:
            worker.close()


class _Worker:
    """Process that runs one call at a time."""

    def __init__(self) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str) and entry]
        command = [sys.executable, "-X", "faulthandler", "-c", _PROGRAM, str(os.getpid()), *path]
        self._process = subprocess.Popen(command, env=safe_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, function: Callable[..., _Result], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Result:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin, "standard input is a pipe"
        assert stdout, "standard output is a pipe"
        request = pickle.dumps((function, args, kwargs))
        try:
            stdin.write(request)
            stdin.flush()
            succeeded, value = pickle.load(stdout)  # noqa: S301 - written by `serve`
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise BrokenExecutor(f"worker process {self._process.pid} died") from error
        if not succeeded:
            raise value
        result: _Result = value
        return result

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Waits until the killed process has ended, and closes its pipes."""
        with suppress(BrokenPipeError), self._process:  # the process has not read the last request
            pass


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    """Makes processes that are started meanwhile ignore Ctrl-C: they inherit the signal mask of this thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(parent: int) -> None:
    """Runs calls read from the standard input, until it or the process with the ID `parent` ends."""
    _exit_with_parent(parent)
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of a library must not mix with the results
    with suppress(EOFError, BrokenPipeError):
        while True:
            function, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by `_Worker.call`
            try:
                result = True, function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised again in the parent process
                error.add_note(traceback.format_exc())
                result = False, error
            results.write(pickle.dumps(result))
            results.flush()
    os._exit(0)


def _exit_with_parent(parent: int) -> None:
    """Ends this process soon after its parent process, even during a call or if another process holds the pipe."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
