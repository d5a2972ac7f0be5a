"""A disk that fails on command, under a process that does not know of it."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")


def compiled(folder: Path) -> Path:
    """`disk.c` as a library to be put before libc."""
    library = folder / "disk.so"
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Disk:
    """What happens to the writes of the processes that run in `environment`."""

    def __init__(self, library: Path, rules: Path) -> None:
        self._rules = rules
        self.environment = {"LD_PRELOAD": str(library), "POOL5_TEST_DISK": str(rules)}
        self.heal()

    def break_(self, *rules: str) -> None:
        """From now on these rules hold, as `disk.c` explains them."""
        aside = self._rules.with_suffix(".aside")
        aside.write_text("".join(f"{rule}\n" for rule in rules))
        aside.replace(self._rules)

    def heal(self) -> None:
        """From now on the disk is as it should be."""
        self.break_()

    def calls(self) -> int:
        """How many calls a `count` rule has counted."""
        return int(self._rules.with_name(f"{self._rules.name}.count").read_text())
