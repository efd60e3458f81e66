"""Programs of ours for a guest: built by cargo where none are given, and put beside a test with their libraries."""
import json
import os
import shutil
import subprocess

from target import ROOT

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = {"sledge-target": ["-p", "sledge-target", "--bin", "sledge-target"], "sledge": ["-p", "sledge", "--bin", "sledge"],
            "sledge-perf": ["-p", "sledge-perf", "--bin", "sledge-perf"],
            "identify": ["-p", "sledge-nvme", "--example", "identify"]}


def built(names, *options):
    """The paths of these programs, after cargo has built them."""
    words = [word for name in names for word in PACKAGES[name]]
    done = subprocess.run([os.environ.get("CARGO", "cargo"), "build", "-q", *words, *options,
                           "--message-format=json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    found = {m["target"]["name"]: m["executable"] for m in map(json.loads, done.stdout.splitlines())
             if m.get("reason") == "compiler-artifact" and m.get("executable")}
    if done.returncode or not set(names) <= set(found):
        raise SystemExit(f"cargo build of {' '.join(names)} failed")
    return [found[name] for name in names]


def libraries(program):
    """The paths of the libraries that the program loads."""
    told = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [word for line in told.splitlines() for word in line.split() if word.startswith("/")]


def guest_folder(folder, steps, names, given=None, *options):
    """Makes the folder that becomes /test in the guest and returns its path.

    It holds `steps`/main, the libraries of steps, and the programs `names`, without what only a debugger reads, with the
    libraries that they load. The programs are those of the folder `given`, or built with cargo's `options`; one that
    is not in the folder, too.
    """
    test = os.path.join(folder, "test")
    for part in ("bin", "lib"):
        os.makedirs(os.path.join(test, part))
    for name in os.listdir(os.path.join(HERE, steps)):
        shutil.copy(os.path.join(HERE, steps, name), os.path.join(test, name if name != "library" else "drive-library"))
    shutil.copy(os.path.join(HERE, "steps", "library"), test)
    paths = {name: place for name in names for part in ("examples", "")
             if given and os.path.exists(place := os.path.join(given, part, name))}
    lacking = [name for name in names if name not in paths]
    paths.update(zip(lacking, built(lacking, *options) if lacking else []))
    for name, path in paths.items():
        there = os.path.join(test, "bin", name)
        subprocess.run(["strip", "--strip-debug", "-o", there, path], check=True)
        for library in libraries(path):
            # The loader and the C library are the guest's, which are this machine's.
            if not library.startswith(("/lib/x86_64-linux-gnu/libc.", "/lib64/")):
                shutil.copy(library, os.path.join(test, "lib"))
    return test
