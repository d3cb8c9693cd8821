"""The results of ./run test, kept in files because its parts run in processes of their own."""

from steps import LOGS


class Results:
    def __init__(self):
        LOGS.mkdir(parents=True, exist_ok=True)
        self._counts, self._failures = LOGS / "results", LOGS / "failures"
        for file in self._counts, self._failures:
            file.write_text("")

    def add(self, passed, failed=0, skipped=0, failures=()):
        """Adds counts. The failures' names are printed again at the end."""
        with open(self._counts, "a") as counts:
            counts.write(f"{passed} {failed} {skipped}\n")
        with open(self._failures, "a") as lines:
            lines.writelines(f"FAILED: {failure}\n" for failure in failures)

    def counted(self, name, function, *arguments):
        """Calls the function and counts it as one result: passed, or failed if it calls fail()."""
        try:
            function(*arguments)
        except SystemExit:
            self.add(0, 1, 0, [name])
        else:
            self.add(1)

    def print(self):
        """Prints the totals. Returns whether nothing failed."""
        counts = [map(int, line.split()) for line in self._counts.read_text().splitlines()]
        passed, failed, skipped = map(sum, zip(*counts))
        skips = f", {skipped} skipped" if skipped else ""
        print(f"{self._failures.read_text()}{passed} passed, {failed} failed{skips}", flush=True)
        return failed == 0
