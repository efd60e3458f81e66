"""QEMU's control protocol (QMP) on a Unix socket: one command at a time, events kept until asked for."""
import json
import socket
import time


class Qmp:
    """A connection; made when QEMU listens, at the latest after `patience` seconds."""

    def __init__(self, path, patience=120):
        end = time.monotonic() + patience
        self.link = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.link.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    raise RuntimeError(f"QEMU does not listen at {path}") from None
                time.sleep(0.1)
        self.stream = self.link.makefile("rwb", buffering=0)
        self.events = []
        self.link.settimeout(patience)
        self._receive("QMP")
        self.call("qmp_capabilities")

    def _receive(self, *keys):
        """The next message with one of the keys; events on the way are kept."""
        while True:
            line = self.stream.readline()
            if not line:
                raise RuntimeError("QEMU has gone")
            message = json.loads(line)
            if any(key in message for key in keys):
                return message
            if "event" in message:
                self.events.append(message)

    def call(self, command, **arguments):
        """Runs a command; returns its result or raises with QEMU's words. Dashes are underscores in arguments."""
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.stream.write(json.dumps(request).encode() + b"\n")
        answer = self._receive("return", "error")
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def wait(self, event, seconds, **data):
        """Returns once the event, with these data, has come since the last wait for it; raises when it does not."""
        end = time.monotonic() + seconds
        while True:
            for message in self.events:
                if message["event"] == event and all(message.get("data", {}).get(k) == v for k, v in data.items()):
                    self.events.remove(message)
                    return message
            if time.monotonic() > end:
                raise RuntimeError(f"no {event} in {seconds} s")
            self.call("query-status")
            time.sleep(0.1)
