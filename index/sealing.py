"""From a decision to compact to an index that is ready to be written: planned, built, tuned."""

from dataclasses import replace

from index import generation, keyset, planner, tuning
from index.gallery import Gallery
from index.generation import UNHURRIED, Generation, Sealed, Work
from index.keyset import KeySet
from index.planner import Plan, Policy

MOST_GROWTH = 4
"""Times as many items as an IVF was trained for, with half the lists that they would be given."""
SEED = 1


def extends(gallery: Gallery, policy: Policy, sealed: Sealed, dead: int) -> bool:
    """Whether the next generation is to be what was sealed so, of whose items `dead` are gone,
    with the newer items added; otherwise it is built anew.

    That is where its kind can be extended and would be chosen again, where it had the recall, and
    where something is new.
    """
    plan = _again(gallery, policy, sealed)
    return (
        plan is not None
        and plan.row.extendable
        and not (plan.row.trained and gallery.count() > MOST_GROWTH * sealed.built)
        and sealed.recall >= policy.recall
        and not policy.worn(sealed.count, dead)
        and gallery.high_key() > sealed.high_key
    )


def extended(
    before: Generation,
    gallery: Gallery,
    policy: Policy,
    high_key: int,
    removed: KeySet,
    work: Work = UNHURRIED,
) -> Generation:
    """A draft: `before`, which nobody else may use and which is changed, with all that is newer.

    What was `removed` stays in it, and so does its `removal_seq`. Raises what `work.between` does.
    """
    generation.extend(before.index, gallery.chunks(after=before.sealed.high_key), work)
    plan = _again(gallery, policy, before.sealed)
    sealed = Sealed(
        kind=before.sealed.kind,
        why=plan.why if plan else before.sealed.why,
        count=before.index.ntotal,
        built=before.sealed.built,
        high_key=high_key,
        removal_seq=before.sealed.removal_seq,
    )
    return _tuned(Generation(sealed, before.index), gallery, policy, removed, work)


def built(
    gallery: Gallery, policy: Policy, high_key: int, removal_seq: int, work: Work = UNHURRIED
) -> Generation:
    """A draft of all that the gallery has: kind after kind as planned, until one has the recall
    that the policy asks for. Where none has, the best of them, which says so in `why`.

    Raises what `work.between` does.
    """
    drafts: list[Generation] = []
    for plan in _plans(gallery, policy):
        drafts.append(_built(plan, gallery, policy, high_key, removal_seq, work))
        if drafts[-1].sealed.recall >= policy.recall:
            return _said(drafts[-1], drafts[:-1], "")
    best = max(drafts, key=lambda draft: draft.sealed.recall)
    return _said(best, drafts, f": the recall {policy.recall} that is asked for is not reached")


def _built(
    plan: Plan, gallery: Gallery, policy: Policy, high_key: int, removal_seq: int, work: Work
) -> Generation:
    wanted = plan.lists * planner.POINTS_PER_LIST
    index = generation.build(
        plan,
        gallery.space.dim,
        sample=(vectors for _, vectors in gallery.sample(wanted, SEED)),
        chunks=gallery.chunks(),
        work=work,
    )
    sealed = Sealed(
        kind=plan.kind,
        why=plan.why,
        count=index.ntotal,
        built=index.ntotal,
        high_key=high_key,
        removal_seq=removal_seq,
    )
    return _tuned(Generation(sealed, index), gallery, policy, keyset.NONE, work)


def _tuned(
    draft: Generation, gallery: Gallery, policy: Policy, removed: KeySet, work: Work
) -> Generation:
    """With what is measured now: parameters for fewer items may be wrong for more."""
    questions = (
        [tuning.timing_questions(gallery)]
        if draft.sealed.kind == "exact"
        else tuning.own_questions(gallery, draft.sealed.high_key, work)
    )
    target = tuning.aim(policy.recall)
    return tuning.tuned(draft, questions, target, removed, gallery.vectors, work).of(draft)


def _plans(gallery: Gallery, policy: Policy) -> list[Plan]:
    space = gallery.space
    return planner.plans(gallery.count(), space.dim, space.dtype, policy)


def _again(gallery: Gallery, policy: Policy, sealed: Sealed) -> Plan | None:
    return next((plan for plan in _plans(gallery, policy) if plan.kind == sealed.kind), None)


def _said(draft: Generation, missed: list[Generation], more: str) -> Generation:
    why = "".join(f"; {one.sealed.kind} has a recall of {one.sealed.recall:.3f}" for one in missed)
    return replace(draft, sealed=replace(draft.sealed, why=draft.sealed.why + why + more))
