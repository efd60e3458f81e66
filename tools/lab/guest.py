"""One guest from power-on to its end: its console as steps of a report, its requests answered."""
import os
import socket
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def answered(deeds, names, request):
    """The line that answers a guest's request: `ok` with what the deed returns, or `no` with why not.

    A deed is a method of `deeds`; only those of `names`, written with dashes, may be asked for.
    """
    word, *arguments = request.split()
    try:
        if word not in names:
            raise RuntimeError("not one of the lab's deeds")
        return "ok " + (getattr(deeds, word.replace("-", "_"))(*arguments) or "")
    except Exception as error:  # whatever went wrong outside is the guest's step's failure
        return "no " + " ".join(str(error).split())


def serve(path, answer, running):
    """Answers the guest's requests on its second serial port until the guest is gone.

    A request that `answer` returns None for gets no answer.
    """
    link = socket.socket(socket.AF_UNIX)
    while running():
        try:
            link.connect(path)
            break
        except OSError:
            time.sleep(0.1)
    with link, link.makefile("rwb", buffering=0) as stream:
        try:
            for line in stream:
                text = line.decode(errors="replace").strip()
                reply = answer(text) if text else None
                if reply is not None:
                    stream.write((reply + "\n").encode())
        except OSError:
            pass


def console_line(report):
    """What to do with each line of the guest's console; see steps/library for the words."""
    def take(text):
        report.context.append(text)
        word, _, rest = text.partition(" ")
        if word == "LAB-START":
            print("  " + rest, flush=True)
        elif word == "STEP-BEGIN":
            report.open_step = rest
            report.context.clear()
        elif word == "STEP-NOTE":
            print("         . " + rest, flush=True)
        elif word in ("STEP-PASS", "STEP-FAIL"):
            seconds, _, name = rest.partition(" ")
            report.end(name, float(seconds), word == "STEP-PASS")
    return take


def follow(path, take, running):
    """Hands each line of a growing file to `take` until the guest is gone."""
    rest = b""
    with open(path, "rb") as console:
        while True:
            alive = running()
            rest += console.read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                take(line.decode(errors="replace").rstrip("\r"))
            if not alive:
                return
            time.sleep(0.1)


def run_guest(report, folder, words, *, console, control, answer, options=(), devices=()):
    """Boots a guest that runs `folder`'s main with `words`, and returns when it has ended.

    `control` is the path of the socket on which `answer` is asked, `options` are guest-run's, `devices` QEMU's.
    A step that was open at the end, and an end other than the steps' own, are failures of the report.
    """
    open(console, "wb").close()
    guest = subprocess.Popen(
        [os.path.join(HERE, "guest-run"), "--quiet", "--console", console, "--control", control, *options,
         folder, *words, "--", *devices], stdin=subprocess.DEVNULL)
    running = lambda: guest.poll() is None
    try:
        threading.Thread(target=serve, args=(control, answer, running), daemon=True).start()
        follow(console, console_line(report), running)
    finally:
        if running():
            guest.terminate()
            guest.wait()
    if report.open_step:
        report.end(report.open_step, 0, False)
    if guest.returncode not in (0, 1) or (guest.returncode == 1 and not report.failed):
        report.end(f"the guest ended with {guest.returncode}", 0, False)
