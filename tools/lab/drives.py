"""The drives of the guest of run-drive-tests: QEMU's arguments for them, their files, and what happens to them."""
import json
import os
import signal
import subprocess
import threading
import time

from qmp import Qmp

MIB = 1 << 20
# Fixed, so that the host knows each namespace again after a power cycle.
UUID = "5f0c9e1a-6d0b-4c43-9a55-0000000000%02d"
# What is kept in files: name of the file and its size. `slow` is served by another process, which can be held.
FILES = {"main1": 64 * MIB, "main2": 64 * MIB, "small": 32 * MIB, "single": 32 * MIB, "mixed1": 16 * MIB,
         "mixed2": 32 * MIB, "faulty": 32 * MIB, "slow": 32 * MIB, "plug": 32 * MIB}
BAD_READ, BAD_WRITE = 2048, 4096        # sectors of 512 bytes of `faulty`


class Drives:
    """The drives' files and processes in `folder`; `sockets` is a folder with a short path."""

    def __init__(self, folder, sockets):
        self.folder = folder
        self.slow = os.path.join(sockets, "slow")
        self.monitor = os.path.join(sockets, "qmp")
        self.qmp = None
        self.daemon = None
        for name, size in FILES.items():
            with open(self.path(name), "wb") as file:
                file.truncate(size)

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self):
        """Starts what serves the drive that can be held."""
        self.daemon = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=slow,filename={self.path('slow')}",
             "--nbd-server", f"addr.type=unix,addr.path={self.slow}",
             "--export", "type=nbd,id=slow,node-name=slow,name=slow,writable=on"], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not os.path.exists(self.slow):
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise RuntimeError("qemu-storage-daemon does not serve")
            time.sleep(0.05)

    def stop(self):
        if self.daemon:
            self.daemon.kill()
            self.daemon.wait()

    def arguments(self):
        """QEMU's, with the controllers at the places that drive-steps/library names."""
        words = ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]

        def node(description):
            words.extend(["-blockdev", json.dumps({"discard": "unmap", **description})])

        def device(description):
            words.extend(["-device", json.dumps(description)])

        for name in FILES:
            file = {"driver": "file", "filename": self.path(name)}
            if name == "slow":
                node({"driver": "nbd", "node-name": name, "export": name, "reconnect-delay": 0,
                      "server": {"type": "unix", "path": self.slow}})
            elif name == "faulty":
                rules = [{"event": "none", "iotype": "read", "errno": 5, "sector": BAD_READ},
                         {"event": "none", "iotype": "write", "errno": 5, "sector": BAD_WRITE}]
                node({"driver": "blkdebug", "node-name": name, "image": file, "inject-error": rules})
            else:
                node({"node-name": name, **file})

        def controller(place, name, **options):
            device({"driver": "nvme", "id": name, "serial": "LAB" + name.upper(), "addr": place, **options})

        def namespace(bus, nsid, drive, number, **options):
            device({"driver": "nvme-ns", "bus": bus, "nsid": nsid, "drive": drive, "uuid": UUID % number, **options})

        def blocks(size):
            return {"logical_block_size": size, "physical_block_size": size}

        controller("04", "main", max_ioqpairs=64)
        namespace("main", 1, "main1", 1, **blocks(512))
        namespace("main", 2, "main2", 2, **blocks(4096))
        controller("05", "small", mdts=1)
        namespace("small", 1, "small", 3, **blocks(4096))
        controller("06", "single", max_ioqpairs=1)
        namespace("single", 1, "single", 4, **blocks(512))
        controller("07", "mixed")
        namespace("mixed", 1, "mixed1", 5, **blocks(4096), zoned=True, **{"zoned.zone_size": 4 * MIB})
        namespace("mixed", 2, "mixed2", 6, **blocks(512))
        controller("08", "faulty")
        namespace("faulty", 1, "faulty", 7, **blocks(512))
        controller("09", "slow")
        namespace("slow", 1, "slow", 8, **blocks(512))
        device({"driver": "pcie-root-port", "id": "hotslot", "addr": "0a", "chassis": 1, "slot": 1})
        device(self.plugged())
        return words

    @staticmethod
    def plugged():
        """The drive that comes and goes."""
        return {"driver": "nvme", "id": "plug", "serial": "LABPLUG", "bus": "hotslot", "drive": "plug"}

    def machine(self):
        """QEMU's monitor."""
        if not self.qmp:
            self.qmp = Qmp(self.monitor)
        return self.qmp

    def hold(self, seconds):
        """From now on no command to `slow` ends, for so long."""
        self.daemon.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, self.daemon.send_signal, [signal.SIGCONT]).start()

    def unplug(self):
        """Asks the guest to let the drive go."""
        self.machine().call("device_del", id="plug")

    def unplugged(self, seconds):
        """Returns when it has gone."""
        self.machine().wait("DEVICE_DELETED", seconds, device="plug")

    def plug(self, patience=60):
        """Puts the drive in again; QEMU lets go of the one before a moment after it has said so."""
        end = time.monotonic() + patience
        while True:
            try:
                return self.machine().call("device_add", **self.plugged())
            except RuntimeError as error:
                if "in use" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def power_cycle(self):
        """Resets the machine."""
        self.machine().call("set-action", reboot="reset")
        self.machine().call("system_reset")

    def powered(self):
        """To be called when the machine is up again: from now on a reset ends QEMU, so that a panic goes no further."""
        self.machine().call("set-action", reboot="shutdown")
