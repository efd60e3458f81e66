"""Steps of a test as they end, with what led to a failure, and the count at the end."""
import collections
import sys
import time


class Report:
    """Counts and prints steps. `context` holds the last lines of a console, shown below a failure."""

    def __init__(self):
        self.passed = self.failed = 0
        self.context = collections.deque(maxlen=60)
        self.open_step = None

    def end(self, name, seconds, passed, why=None):
        """Records a step that took `seconds`; `why` stands in for the context of a failure."""
        self.open_step = None
        self.passed += passed
        self.failed += not passed
        print(f"  {'ok  ' if passed else 'FAIL'} {seconds:6.1f} s  {name}", flush=True)
        if not passed:
            lines = why.splitlines() if why else [line for line in self.context if not line.startswith("STEP-")]
            print("".join(f"         | {line}\n" for line in lines), end="", flush=True)

    def check(self, name, action):
        """A step on this machine: passes unless the action raises. Returns what the action returns."""
        start = time.monotonic()
        result = why = None
        try:
            result = action()
        except Exception as error:  # any failure is the step's
            why = f"{type(error).__name__}: {error}"
        self.end(name, time.monotonic() - start, why is None, why)
        return result

    def finish(self):
        """Prints the count and ends the program: status 0 when steps passed and none failed."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(0 if self.passed and not self.failed else 1)
