from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from index import Catalog, CollectionError, FileOutcome, Jobs
from tests.index.making import HIGH, new_item


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(catalog: Catalog, clock: Clock) -> Jobs:
    return Jobs(catalog.database, clock)


def _ok(reference: str, status: str = "added") -> FileOutcome:
    return FileOutcome(reference, f"id-{reference}", status)  # type: ignore[arg-type]


def _failed(reference: str) -> FileOutcome:
    return FileOutcome(reference, None, "failed", "picture-truncated", "it ends too early")


def test_a_new_job_waits_in_the_queue(jobs: Jobs) -> None:
    job = jobs.create("shoes", {"folder": "/pictures"})
    assert job == jobs.get(job.id)
    assert (job.state, job.total, job.done, job.failed) == ("queued", None, 0, 0)
    assert job.source == {"folder": "/pictures"}
    assert job.created_at.timestamp() == 1_000_000
    assert job.started_at is job.finished_at is job.problem is None


def test_an_unknown_job_is_said_to_be_unknown(jobs: Jobs) -> None:
    unknown: list[Callable[[], object]] = [
        lambda: jobs.get("nope"),
        lambda: jobs.errors("nope"),
        lambda: jobs.cancel("nope"),
        lambda: jobs.record_failed("nope", [_failed("a")]),
    ]
    for ask in unknown:
        with pytest.raises(CollectionError) as refused:
            ask()
        assert refused.value.code == "job-unknown"


def test_jobs_are_claimed_in_the_order_in_which_they_came(jobs: Jobs) -> None:
    first, second = jobs.create("shoes", {}), jobs.create("hats", {})
    claimed = [jobs.claim("me", 60) for _ in range(3)]
    assert [job and job.id for job in claimed] == [first.id, second.id, None]
    assert jobs.get(first.id).state == "running"


def test_a_job_is_claimed_by_one_worker_only(jobs: Jobs) -> None:
    made = {jobs.create("shoes", {"n": n}).id for n in range(20)}
    with ThreadPoolExecutor(8) as workers:
        claimed = list(workers.map(lambda n: jobs.claim(f"worker {n}", 60), range(40)))
    ids = [job.id for job in claimed if job]
    assert len(ids) == 20
    assert set(ids) == made


def test_a_job_whose_worker_died_is_claimed_when_its_lease_runs_out(
    jobs: Jobs, clock: Clock
) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("dead", 60)
    clock.now += 59
    assert jobs.claim("next", 60) is None
    clock.now += 2
    taken = jobs.claim("next", 60)
    assert taken is not None
    assert taken.id == job.id
    assert taken.started_at is not None
    assert taken.started_at.timestamp() == 1_000_000
    assert not jobs.renew(job.id, "dead", 60)
    assert jobs.renew(job.id, "next", 60)


def test_a_renewed_lease_lasts(jobs: Jobs, clock: Clock) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("me", 60)
    clock.now += 50
    assert jobs.renew(job.id, "me", 60)
    clock.now += 50
    assert jobs.claim("other", 60) is None


def test_a_released_job_is_claimed_at_once(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("me", 60)
    jobs.release(job.id, "other")
    assert jobs.get(job.id).state == "running"
    jobs.release(job.id, "me")
    assert jobs.get(job.id).state == "queued"
    taken = jobs.claim("next", 60)
    assert taken is not None
    assert taken.id == job.id


def test_outcomes_are_counted_once_however_often_they_are_recorded(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    jobs.set_total(job.id, 4)
    jobs.record_failed(job.id, [_ok("a"), _ok("b", "unchanged"), _failed("c")])
    jobs.record_failed(job.id, [_ok("a"), _failed("b"), _ok("d", "replaced"), _ok("d")])
    now = jobs.get(job.id)
    assert (now.total, now.done, now.failed, now.unchanged) == (4, 3, 1, 1)
    assert jobs.finished(job.id, ["a", "c", "d", "e"]) == {"a", "c", "d"}


def test_the_outcomes_of_one_job_are_not_those_of_another(jobs: Jobs) -> None:
    one, other = jobs.create("shoes", {}), jobs.create("shoes", {})
    jobs.record_failed(one.id, [_failed("a")])
    assert jobs.finished(other.id, ["a"]) == set()
    assert jobs.errors(other.id) == []


def test_an_outcome_is_recorded_with_its_item_or_not_at_all(catalog: Catalog) -> None:
    collection, jobs = catalog.create_collection("shoes", [HIGH], {}), catalog.jobs
    job = jobs.create("shoes", {})
    collection.add(
        [new_item("a", 1)],
        also=lambda connection, outcomes: jobs.record(
            connection, job.id, [_ok("a.jpg", outcomes[0].status)]
        ),
    )
    assert jobs.finished(job.id, ["a.jpg"]) == {"a.jpg"}

    def fail(connection: object, outcomes: object) -> None:
        jobs.record(connection, job.id, [_ok("b.jpg")])  # type: ignore[arg-type]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        collection.add([new_item("b", 2)], also=fail)
    assert jobs.finished(job.id, ["b.jpg"]) == set()
    assert collection.count() == 1
    assert jobs.get(job.id).done == 1


def test_errors_are_paged_in_the_order_of_time(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    for n in range(5):
        jobs.record_failed(job.id, [_ok(f"good{n}"), _failed(f"bad{n}")])
    first = jobs.errors(job.id, limit=3)
    rest = jobs.errors(job.id, after=first[-1].seq, limit=3)
    assert [outcome.reference for outcome in [*first, *rest]] == [f"bad{n}" for n in range(5)]
    assert (first[0].code, first[0].detail) == ("picture-truncated", "it ends too early")


def test_a_finished_job_stays_finished(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("me", 60)
    jobs.finish(job.id, "failed", {"code": "folder-missing"})
    jobs.finish(job.id, "done")
    ended = jobs.get(job.id)
    assert (ended.state, ended.problem) == ("failed", {"code": "folder-missing"})
    assert ended.finished_at is not None
    assert jobs.claim("other", 60) is None
    with pytest.raises(ValueError, match="does not end"):
        jobs.finish(job.id, "running")  # type: ignore[arg-type]


def test_cancelling_ends_a_job_and_its_worker_writes_nothing_more(jobs: Jobs) -> None:
    running = jobs.create("shoes", {})
    jobs.claim("me", 60)
    queued = jobs.create("shoes", {})
    assert jobs.cancel(queued.id).state == "cancelled"
    jobs.record_failed(running.id, [_ok("a")])
    assert jobs.cancel(running.id).state == "cancelled"
    assert not jobs.renew(running.id, "me", 60)
    with pytest.raises(CollectionError) as lost:
        jobs.record_failed(running.id, [_ok("b")], "me")
    assert lost.value.code == "job-lost"
    jobs.finish(running.id, "done", owner="me")
    ended = jobs.get(running.id)
    assert (ended.state, ended.done, ended.complete) == ("cancelled", 1, False)


def test_a_worker_that_lost_its_lease_can_neither_record_nor_fail_the_job(
    jobs: Jobs, clock: Clock
) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("slow", 60)
    clock.now += 61
    jobs.claim("next", 60)
    with pytest.raises(CollectionError, match="not ours"):
        jobs.record_failed(job.id, [_ok("a")], "slow")
    jobs.set_total(job.id, 7, "slow")
    jobs.finish(job.id, "failed", {"code": "folder-missing"}, "slow")
    jobs.release(job.id, "slow")
    now = jobs.get(job.id)
    assert (now.state, now.total, now.done, now.problem) == ("running", None, 0, None)
    jobs.record_failed(job.id, [_ok("a")], "next")
    assert jobs.get(job.id).done == 1


def test_a_job_that_pauses_says_why_and_waits(jobs: Jobs, clock: Clock) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("me", 60)
    jobs.release(job.id, "me", {"code": "disk-full"}, 10)
    assert jobs.get(job.id).problem == {"code": "disk-full"}
    assert jobs.claim("me", 60) is None
    clock.now += 11
    again = jobs.claim("me", 60)
    assert again is not None
    assert (again.id, again.problem) == (job.id, None)


def test_a_retry_is_about_the_failed_files_and_supersedes_their_outcomes(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    with pytest.raises(CollectionError) as refused:
        jobs.retry(job.id)
    assert refused.value.code == "job-running"
    jobs.claim("me", 60)
    jobs.record_failed(job.id, [_ok("a"), _failed("b"), _failed("c"), _failed("d")], "me")
    jobs.finish(job.id, "done", owner="me")
    again = jobs.retry(job.id)
    assert (again.state, again.done, again.failed, again.retries) == ("queued", 1, 0, 1)
    assert jobs.errors(job.id) == []
    jobs.claim("me", 60)
    assert jobs.finished(job.id, list("abcd")) == {"a"}
    assert jobs.retrying(job.id, list("abcde")) == {"b", "c", "d"}
    jobs.record_failed(job.id, [_ok("b"), _failed("c")], "me")
    jobs.record_failed(job.id, [_failed("b"), _ok("c")], "me")
    jobs.finish(job.id, "done", owner="me")
    ended = jobs.get(job.id)
    assert (ended.state, ended.done, ended.failed, ended.complete) == ("done", 2, 2, True)
    reasons = {error.reference: error.code for error in jobs.errors(job.id)}
    assert reasons == {"c": "picture-truncated", "d": "source-file-missing"}


def test_a_retry_that_is_cancelled_leaves_the_rest_failed_as_before(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    jobs.claim("me", 60)
    jobs.record_failed(job.id, [_failed("a"), _failed("b")], "me")
    jobs.finish(job.id, "failed", {"code": "source-vanished"}, "me")
    jobs.retry(job.id)
    jobs.record_failed(job.id, [_ok("a")])
    ended = jobs.cancel(job.id)
    assert (ended.state, ended.done, ended.failed, ended.problem) == ("cancelled", 1, 1, None)
    assert [error.code for error in jobs.errors(job.id)] == ["picture-truncated"]
    assert jobs.retry(job.id).state == "queued"


def test_there_is_nothing_to_retry_where_nothing_failed(jobs: Jobs) -> None:
    job = jobs.create("shoes", {})
    jobs.record_failed(job.id, [_ok("a")])
    jobs.finish(job.id, "done")
    with pytest.raises(CollectionError) as refused:
        jobs.retry(job.id)
    assert refused.value.code == "job-nothing-to-retry"


def test_dropping_a_collection_cancels_its_jobs_and_no_other(catalog: Catalog) -> None:
    for name in ("shoes", "hats"):
        catalog.create_collection(name, [HIGH], {})
    running, queued, other = (catalog.jobs.create(name, {}) for name in ("shoes", "shoes", "hats"))
    catalog.jobs.claim("me", 60)
    catalog.drop_collection("shoes")
    assert catalog.jobs.get(running.id).state == "cancelled"
    assert catalog.jobs.get(queued.id).state == "cancelled"
    assert catalog.jobs.get(other.id).state == "queued"
    assert not catalog.jobs.renew(running.id, "me", 60)


def test_jobs_are_listed_the_newest_first(jobs: Jobs) -> None:
    ids = [jobs.create(name, {}).id for name in ("shoes", "hats", "shoes")]
    assert [job.id for job in jobs.list()] == ids[::-1]
    assert [job.id for job in jobs.list("shoes")] == [ids[2], ids[0]]
    assert [job.id for job in jobs.list(limit=1)] == [ids[2]]
