"""What commands that describe pictures in memory share: an extractor, and what failed."""

from collections.abc import Sequence

from models import Extractor, Limits, SpecError, WhiteningFolder
from service.cli.options import status
from service.cli.progress import transferred
from service.engine import weights_folder
from service.evaluating.report import FailureBody
from service.settings import Settings

SHOWN_FAILURES = 10


def extractor_of(settings: Settings, specs: Sequence[str], weights: dict[str, str]) -> Extractor:
    """An extractor of these specs, each named by itself; what must be known of weights is said."""
    with transferred("downloading weights") as downloading:
        extractor = Extractor(
            {text: text for text in specs},
            weights=weights,
            folder=weights_folder(settings, downloading),
            whitenings=WhiteningFolder(settings.data / "whitenings"),
            device=settings.device,
            limits=Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames),
        )
    for notice in extractor.notices:
        status.print(notice, markup=False)
    return extractor


def weights_of(networks: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Weights by network; what names no network is for all the others, `auto` where nothing is.

    Raises SpecError: `spec-weights-unclear`.
    """
    named = dict(choice.split("=", 1) for choice in given if "=" in choice)
    rest = [choice for choice in given if "=" not in choice]
    if len(rest) > 1 or not named.keys() <= set(networks):
        raise SpecError(
            "spec-weights-unclear",
            f"--weights {', '.join(given)}: give one for all networks, and others as "
            f"NETWORK=WEIGHTS for {', '.join(dict.fromkeys(networks))}",
        )
    return dict.fromkeys(networks, rest[0] if rest else "auto") | named


def show_failures(failed: Sequence[FailureBody]) -> None:
    """How many pictures are left out, and the first of them with the reason."""
    if failed:
        status.print(f"{len(failed)} pictures are left out")
    for failure in failed[:SHOWN_FAILURES]:
        status.print(f"  {failure.name}: {failure.detail} ({failure.code})", markup=False)
