"""A fuzz of what reads strangers' files: the picture decoder and the archive readers.

    python -m benchmarks.fuzz --files 100000 --out benchmarks/results/fuzz.json

Mutants follow from their number alone. They are tried in a process of their own, whose memory is
limited and whose progress is watched, so that a crash, a hang or a large allocation belongs to one
mutant; that is saved, the next process goes on behind it. Ends with status 1 where one was found.
"""

import argparse
import bz2
import gzip
import json
import lzma
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import fuzz_seeds
from benchmarks.mutations import mutated
from benchmarks.sets import machine
from models import Limits, ModelsError, decode
from service.indexing.archive import ArchiveSource
from service.indexing.member import ArchiveLimits
from service.indexing.source import SourceError

MIB = 1024 * 1024
MEMORY = 256 * MIB
"""How much address space a mutant may cause to be mapped beyond what the process has."""

DEADLINE_S = 20.0
LIMITS = Limits(max_bytes=MIB, max_pixels=MIB, max_frames=100)
ARCHIVE_LIMITS = ArchiveLimits(entries=100, total_bytes=16 * MIB)
MEMBER_BYTES = MIB
FINE = "fine"


class BrokenPromiseError(Exception):
    """A reader gave what it must not give."""


@dataclass(frozen=True)
class Target:
    """One kind of file: how its mutants are made, and what reads them."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes, int], None]
    repair: Callable[[bytes], bytes] | None = None
    inside: Sequence[bytes] | None = None
    """Mutants of these, repaired, are every second one: damage below checksums and packing."""

    def mutant(self, number: int) -> bytes:
        """The `number`-th file."""
        if self.repair is None or number % 2 or number < len(self.seeds):
            return mutated(self.seeds, number, self.name)
        return self.repair(mutated(self.inside or self.seeds, number, self.name))


def read_picture(content: bytes, number: int) -> None:
    """Decode as indexing does, every third time at full size."""
    picture = decode(content, LIMITS, 32 if number % 3 else None)
    if picture.image.mode != "RGB" or picture.image.info:
        raise BrokenPromiseError(f"a picture in {picture.image.mode}")
    width, height = picture.image.size
    if max(width * height, picture.width * picture.height) > LIMITS.max_pixels:
        raise BrokenPromiseError(f"{width} × {height} pixels of {picture.width, picture.height}")


def read_archive(content: bytes, _number: int) -> None:
    """Read every member as a job does; that some are refused is fine."""
    path = Path(tempfile.gettempdir()) / f"pool5-fuzz-{os.getpid()}"
    path.write_bytes(content)
    try:
        source = ArchiveSource(path, MEMBER_BYTES, ARCHIVE_LIMITS)
        references, total = set(), 0
        for count, entry in enumerate(source.entries(), 1):
            references.add(entry.reference)
            if len(references) < count:
                raise BrokenPromiseError(f"two entries are called {entry.reference!r}")
            try:
                total += len(entry.read())
            except SourceError:
                continue
        if total > ARCHIVE_LIMITS.total_bytes or len(references) > ARCHIVE_LIMITS.entries + 1:
            raise BrokenPromiseError(f"{total} bytes in {len(references)} members")
    finally:
        path.unlink()


def targets() -> list[Target]:
    """Every kind of file that is read."""
    pictures = fuzz_seeds.pictures()
    archives = fuzz_seeds.archives()
    tars = archives["tar"]
    packed: Mapping[str, Callable[[bytes], bytes]] = {
        "tar.gz": partial(gzip.compress, compresslevel=1, mtime=0),
        "tar.bz2": partial(bz2.compress, compresslevel=1),
        "tar.xz": partial(lzma.compress, preset=0),
    }
    found = [Target(name, seeds, read_picture) for name, seeds in pictures.items()]
    found = [
        replace(target, repair=fuzz_seeds.repaired_png) if target.name == "PNG" else target
        for target in found
    ]
    for name, seeds in archives.items():
        target = Target(name, seeds, read_archive)
        if name == "tar":
            target = replace(target, repair=fuzz_seeds.repaired_tar)
        elif name in packed:
            repair = partial(_packed_again, packed[name])
            target = replace(target, repair=repair, inside=tars)
        found.append(target)
    return found


def _packed_again(pack: Callable[[bytes], bytes], tar: bytes) -> bytes:
    return pack(fuzz_seeds.repaired_tar(tar))


def outcome(target: Target, number: int) -> str:
    """FINE, the code of a refusal, or, after an exclamation mark, what must never happen."""
    content = target.mutant(number)
    try:
        target.read(content, number)
    except (ModelsError, SourceError) as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause)
        if any(isinstance(cause, MemoryError) for cause in causes):
            return "!memory"
        return error.code
    except MemoryError:
        return "!memory"
    except Exception as error:  # noqa: BLE001
        return f"!{type(error).__name__}:{error}".replace("\n", " ").replace("\t", " ")
    return FINE


def _work(target: Target, start: int, stop: int, log: int) -> None:
    """Try mutants in this process, a line for each: number, milliseconds, KiB grown by, outcome."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(start, stop):
        before = time.process_time()
        said = outcome(target, number)
        took = (time.process_time() - before) * 1000
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
        os.write(log, f"{number}\t{took:.1f}\t{grown}\t{said}\n".encode())


def _watched(target: Target, start: int, stop: int, log: Path) -> str | None:
    """Work in a child until it is through, or is lost: then how."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)  # The C libraries remark on every second mutant.
            _work(target, start, stop, os.open(log, os.O_WRONLY | os.O_APPEND))
            status = 0
        finally:
            os._exit(status)
    size, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else f"!{_signal(code)}"
        if (now := log.stat().st_size) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > DEADLINE_S:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"!hangs for {DEADLINE_S:g} s"
        time.sleep(0.02)


def _signal(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def fuzzed(target: Target, files: int, kept: Path) -> dict[str, Any]:
    """Try `files` mutants; those that broke something are put into the folder `kept`."""
    started, log = time.monotonic(), kept / f"{target.name}.log"
    log.write_text("")
    number = 0
    while number < files:
        lost = _watched(target, number, files, log)
        number = log.read_text().count("\n")
        if lost is not None:
            with log.open("a") as lines:
                lines.write(f"{number}\t0\t0\t{lost}\n")
            number += 1
    counts: Counter[str] = Counter()
    found, slowest, grown = [], (0.0, 0), (0, 0)
    for line in log.read_text().splitlines():
        at, took, kib, said = line.split("\t")
        counts[said.split(":")[0]] += 1
        slowest = max(slowest, (float(took), int(at)))
        grown = max(grown, (int(kib), -int(at)))
        if said.startswith("!"):
            found.append({"number": int(at), "what": said[1:]})
            (kept / f"{target.name}-{at}").write_bytes(target.mutant(int(at)))
    log.unlink()
    fine = counts.pop(FINE, 0)
    return {
        "files": files,
        "seeds": len(target.seeds),
        "read": fine,
        "refused": {code: n for code, n in sorted(counts.items()) if not code.startswith("!")},
        "found": found,
        "slowest_ms": round(slowest[0]),
        "slowest": slowest[1],
        "peak_growth_mib": round(grown[0] / 1024),
        "largest": -grown[1],
        "seconds": round(time.monotonic() - started, 1),
    }


def run(files: int, kept: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    """Fuzz every kind of file with its share of `files`."""
    chosen = [target for target in targets() if not only or target.name in only]
    kept.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    kinds = {}
    for target in chosen:
        kinds[target.name] = fuzzed(target, -(-files // len(chosen)), kept)
        print(target.name, json.dumps(kinds[target.name])[:400], file=sys.stderr, flush=True)
    return {
        "files": sum(kind["files"] for kind in kinds.values()),
        "read": sum(kind["read"] for kind in kinds.values()),
        "found": sum(len(kind["found"]) for kind in kinds.values()),
        "peak_growth_mib": max(kind["peak_growth_mib"] for kind in kinds.values()),
        "caps": {
            "address_space_mib": MEMORY // MIB,
            "pixels": LIMITS.max_pixels,
            "seconds_per_file": DEADLINE_S,
        },
        "seconds": round(time.monotonic() - started, 1),
        "kinds": kinds,
        "machine": machine(),
    }


def main() -> None:
    said = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    said.add_argument("--files", type=int, default=100_000)
    said.add_argument("--out", type=Path, help="where the result goes; printed without")
    said.add_argument("--kept", type=Path, help="folder for mutants that broke something")
    said.add_argument("--only", nargs="*", default=(), help="kinds of file")
    asked = said.parse_args()
    kept = asked.kept or Path(tempfile.mkdtemp(prefix="pool5-fuzz-"))
    result = run(asked.files, kept, asked.only)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if asked.out:
        asked.out.write_text(text)
    else:
        print(text)
    if result["found"]:
        sys.exit(f"{result['found']} mutants broke something: see {kept}")


if __name__ == "__main__":
    main()
