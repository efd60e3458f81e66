"""A sledge-target under test: started with a configuration, called over its socket, killed, stopped."""
import json
import os
import signal
import shutil
import socket
import subprocess
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
LAB = os.path.join(ROOT, "build", "lab")
# Seconds after which something hangs, on a machine that is slow.
PATIENCE = 60


KEPT = []


def free_port():
    """A TCP port of 127.0.0.1 that nobody else is given until this program ends.

    A socket stays bound to it, without listening: the kernel then gives the port to nobody who asks for any, while a
    target may listen there whenever it is started.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    KEPT.append(keeper)
    return keeper.getsockname()[1]


def allocated(path):
    """The bytes that a file has of its file system, as text."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return str(os.fstat(file.fileno()).st_blocks * 512)


def find_target(given):
    """The program to test: the given one, or one that cargo builds first."""
    if given:
        path = os.path.realpath(given)
        if not os.access(path, os.X_OK):
            raise SystemExit(f"no program at {given}")
        return path
    built = subprocess.run([os.environ.get("CARGO", "cargo"), "build", "-q", "-p", "sledge-target",
                            "--message-format=json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    programs = [m["executable"] for m in map(json.loads, built.stdout.splitlines())
                if m.get("reason") == "compiler-artifact" and m.get("executable")
                and m["target"]["name"] == "sledge-target"]
    if built.returncode or not programs:
        raise SystemExit("cargo build -p sledge-target failed")
    return programs[-1]


class Target:
    """One target process at a time; `start` may follow `kill` any number of times."""

    def __init__(self, program, configuration, folder, port, log):
        self.program = find_target(program)
        self.folder = folder
        self.port = port
        self.log = log
        # A socket's path may have 107 characters only, so it is not below the checkout.
        self.sockets = tempfile.mkdtemp(prefix="sledge-lab.")
        self.socket = os.path.join(self.sockets, "rpc.sock")
        self.process = None
        # Two reactors where the machine has two cores, so that a host's queues are on different ones.
        self.cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
        self.configuration = os.path.join(folder, "configuration.json")
        with open(self.configuration, "w", encoding="utf-8") as file:
            json.dump(configuration, file, indent=2)
        open(log, "wb").close()

    def start(self):
        """Starts the process and returns when it accepts connections (or, without a port, calls)."""
        if self.process:
            raise RuntimeError("the target runs already")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.program, "-c", self.configuration, "--rpc-socket", self.socket,
                                             "--cores", self.cores], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            self.must_run()
            if time.monotonic() > end:
                raise RuntimeError(f"the target does not listen after {PATIENCE} s")
            time.sleep(0.05)

    def _answers(self):
        probe = socket.socket() if self.port else socket.socket(socket.AF_UNIX)
        with probe:
            return probe.connect_ex(("127.0.0.1", self.port) if self.port else self.socket) == 0

    def must_run(self):
        """Raises when the process has ended."""
        if not self.process or self.process.poll() is not None:
            raise RuntimeError(f"the target has ended with {self.process.returncode if self.process else 'nothing'}:\n"
                               + self.tail(10))

    def call(self, method, params=None):
        """One JSON-RPC call; returns its result or raises with the target's message."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params:
            request["params"] = params
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE)
            link.connect(self.socket)
            link.sendall(json.dumps(request).encode())
            text = b""
            while True:
                more = link.recv(65536)
                text += more
                try:
                    answer = json.loads(text)
                    break
                except ValueError:
                    if not more:
                        raise RuntimeError(f"{method}: the target closed the connection") from None
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def kill(self):
        """Ends the process as a crash would; nothing happens when none runs."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self):
        """Asks the process to end; raises unless it does with status 0."""
        self.must_run()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the target still runs {PATIENCE} s after SIGTERM") from None
        self.process = None
        if code:
            raise RuntimeError(f"the target ended with {code}")

    def forget(self):
        """Ends the process if it runs and removes its sockets."""
        self.kill()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def tail(self, lines):
        """The last lines of the log."""
        with open(self.log, errors="replace", encoding="utf-8") as file:
            return "".join(file.readlines()[-lines:])
