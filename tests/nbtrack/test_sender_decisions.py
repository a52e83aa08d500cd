"""What a sender does about an answer: it waits, gives up, sets an item aside, or divides it. No server is asked."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbtrack.errors import ServerError, UnsentError
from nbtrack.sender import sender as module
from nbtrack.sender.queue_items import Batch, Call, Experiment, File, Item
from nbtrack.sender.sender import PERSISTENCE, Sender, ServerRefusesError
from nbtrack.tags import LOCAL_ID, SEEN

RUN, ROOT, OTHER = (f"10ca1{digit * 27}" for digit in "123")
GIVEN, FOREIGN = 32 * "a", 32 * "b"

AWAY = UnsentError("no connection")
TORN = TimeoutError("timed out")
SIGN_IN = ServerError(401, "", "who are you")
DENIED = ServerError(403, "PERMISSION_DENIED", "not you")
HIDDEN = ServerError(403, "", "not you")  # so answers a server with accounts about what does not exist
INVALID = ServerError(400, "INVALID_PARAMETER_VALUE", "too long")
MISSING = ServerError(404, "RESOURCE_DOES_NOT_EXIST", "no run")
NO_ROUTE = ServerError(404, "", "not found")
BUSY = ServerError(429, "", "later")
BROKEN = ServerError(500, "INTERNAL_ERROR", "a bug")
NOT_READY = ServerError(503, "", "starting")


class Rest:
    """A server that answers every write with the next of some errors, then with success."""

    ahead = 0.0

    def __init__(self, errors: Iterable[Exception] = (), takes_more: bool = True) -> None:
        self.errors, self.takes_more = list(errors), takes_more
        self.poison = ""  # a name that no request may contain
        self.answers: dict[str, Any] = {}  # by path
        self.stored: list[str] = []

    def write(self, what: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        if self.poison and self.poison in what:
            raise BROKEN
        self.stored.append(what)

    def call(self, method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        name = path.removeprefix("/api/2.0/mlflow/")
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        if name == "runs/get":
            return answer or {"run": {"info": {"lifecycle_stage": "active"}}}
        if answer is None:
            self.write(f"{name} {json.dumps(fields)}")
        return dict(answer or {})

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if list(tags) == [SEEN]:
            if not self.takes_more:
                raise AWAY
            return
        names = [*(point["key"] for point in metrics), *params, *tags]
        self.write(f"{run_id[0]}: {' '.join(names)}")

    def upload(self, root: str, path: str, chunks: Any, sent: Any) -> None:
        self.write(path)

    def experiment(self, name: str) -> dict[str, Any]:
        self.write(name)
        return {"experiment_id": "7", "artifact_location": "mlflow-artifacts:/7"}

    def healthy(self) -> bool:
        return self.takes_more


class Clock(SimpleNamespace):
    """A clock that only tests move on."""

    now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


@pytest.fixture
def sender(tmp_path: Path, clock: Clock) -> Sender:
    """A sender whose run is on the server."""
    result = Sender(tmp_path, "http://127.0.0.1:9")
    result.own_run, result.own_root = RUN, ROOT
    result.progress.note(ids={RUN: GIVEN, ROOT: "mlflow-artifacts:/7/a"})
    return result


def answers(sender: Sender, *errors: Exception, takes_more: bool = True) -> Rest:
    rest = Rest(errors, takes_more)
    sender.rest = rest  # type: ignore[assignment]
    return rest


def point(key: str) -> dict[str, Any]:
    return {"key": key, "value": 1.0, "timestamp": 5, "step": 0}


def own() -> Batch:
    return Batch(RUN, tags={"t": "x"})


def foreign() -> Batch:
    return Batch(FOREIGN, tags={"t": "x"})


def file() -> File:
    return File(ROOT, "a.txt", lambda: [b"x"])


def inputs() -> Call:
    return Call("POST", "runs/log-inputs", {"run_id": RUN, "datasets": []})


def register() -> Call:
    return Call("POST", "/api/2.0/mlflow/registered-models/set-tag", {"name": "m", "key": "k", "value": "v"})


def vital() -> Call:
    call = Call("POST", "runs/create", {"experiment_id": "7", "tags": []}, OTHER, "run")
    call.vital = True
    return call


def place() -> Experiment:
    item = Experiment("e", OTHER, f"{OTHER}-root")
    item.vital = True
    return item


def outcome(sender: Sender) -> str:
    """Deliver what is queued and say what happened."""
    try:
        sender.flush()
    except ServerRefusesError:
        return "refused"
    except (OSError, ServerError):
        return "waits"
    return "set aside" if sender.aside() else "delivered"


ITEMS = {"own": own, "foreign": foreign, "file": file, "inputs": inputs, "register": register}
ALWAYS = 10  # times that an error is answered: more often than any item is sent

DECISIONS = {
    "away": (AWAY, ITEMS, True, "waits"),
    "no answer": (TORN, ITEMS, True, "waits"),
    "sign in": (SIGN_IN, ITEMS, True, "refused"),
    "denied, others are not": (DENIED, ITEMS, True, "set aside"),
    "denied, as everything": (DENIED, ["own", "foreign", "file", "inputs"], False, "refused"),
    "the registry denied, as everything": (DENIED, ["register"], False, "set aside"),
    "denied without a reason": (HIDDEN, ["foreign", "register"], True, "set aside"),
    "invalid": (INVALID, ITEMS, True, "set aside"),
    "invalid, and nothing else is taken": (INVALID, ITEMS, False, "set aside"),
    "missing": (MISSING, ["foreign", "register", "file"], True, "set aside"),
    "an error of the server's": (BROKEN, ITEMS, True, "set aside"),
    "an error of the server's, as for everything": (BROKEN, ITEMS, False, "waits"),
    "no such address": (NO_ROUTE, ITEMS, True, "set aside"),
    "no such address, as for everything": (NO_ROUTE, ITEMS, False, "waits"),
    "busy": (BUSY, ITEMS, True, "waits"),
    "starting": (NOT_READY, ITEMS, True, "waits"),
}


@pytest.mark.parametrize(
    ("error", "item", "takes_more", "expected"),
    [(error, item, more, done) for error, items, more, done in DECISIONS.values() for item in items],
    ids=[f"{name}: {item}" for name, (_, items, _, _) in DECISIONS.items() for item in items],
)
def test_what_an_error_means_for_an_item(
    sender: Sender, error: Exception, item: str, takes_more: bool, expected: str
) -> None:
    answers(sender, *[error] * ALWAYS, takes_more=takes_more)
    sender.put(ITEMS[item]())
    assert outcome(sender) == expected
    assert len(sender.queue) == (expected not in {"set aside", "delivered"})


@pytest.mark.parametrize("item", [vital, place])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AWAY, "waits"),
        (SIGN_IN, "refused"),
        (DENIED, "refused"),
        (INVALID, "refused"),
        (BROKEN, "waits"),
        (NO_ROUTE, "waits"),
        (NOT_READY, "waits"),
    ],
)
def test_without_a_run_nothing_is_set_aside(sender: Sender, item: Any, error: Exception, expected: str) -> None:
    answers(sender, *[error] * ALWAYS)
    sender.put(item())
    assert outcome(sender) == expected and sender.aside() == [] and len(sender.queue) == 1


@pytest.mark.parametrize(
    ("error", "sent"), [(INVALID, 1), (DENIED, 3), (BROKEN, 3), (NO_ROUTE, 3), (MISSING, 1)], ids=str
)
@pytest.mark.parametrize("item", [foreign, register])
def test_how_often_an_item_is_sent_before_it_is_set_aside(
    sender: Sender, item: Any, error: Exception, sent: int
) -> None:
    """What is denied outside the registry is sent again: the server may be about to grant it."""
    once = item is register and error is DENIED
    rest = answers(sender, *[error] * ALWAYS)
    sender.put(item())
    assert outcome(sender) == "set aside"
    assert ALWAYS - len(rest.errors) == (1 if once else sent)


@pytest.mark.parametrize("errors", [[BROKEN], [BROKEN, BROKEN], [NO_ROUTE, DENIED]])
def test_a_fault_that_passes_costs_nothing(sender: Sender, errors: list[Exception]) -> None:
    rest = answers(sender, *errors)
    sender.put(own())
    assert outcome(sender) == "delivered" and rest.stored == ["a: t"]


@pytest.mark.parametrize(
    ("apart", "takes_more", "expected"),
    [
        ([1, 10, 20, 20], True, "waits"),
        ([1, 20, 20, 20], True, "set aside"),
        ([100], True, "waits"),
        ([1, 20, 20, 20, 20, 20], False, "waits"),
        ([1, 20, -500], True, "set aside"),
    ],
    ids=["for less than a minute", "for a minute", "seldom", "as everything", "while the clock was set back"],
)
@pytest.mark.parametrize("error", [NOT_READY, BUSY])
def test_what_fails_alone_for_a_minute_is_set_aside(
    sender: Sender, clock: Clock, error: Exception, apart: list[int], takes_more: bool, expected: str
) -> None:
    answers(sender, *[error] * 20, takes_more=takes_more)
    sender.put(inputs())
    outcomes = [outcome(sender)]
    for seconds in apart:
        clock.now += seconds
        outcomes.append(outcome(sender))
    assert outcomes == ["waits"] * len(apart) + [expected]


def test_attempts_are_counted_across_senders(sender: Sender, clock: Clock) -> None:
    one = sender
    for _ in range(3):
        answers(one, NOT_READY)
        one.put(inputs())
        assert outcome(one) == "waits"
        clock.now += PERSISTENCE / 3
        one = Sender(sender.folder, "http://127.0.0.1:9")
        one.own_run, one.own_root = RUN, ROOT
    answers(one, *[NOT_READY] * ALWAYS)
    one.put(inputs())
    assert outcome(one) == "set aside"
    assert not one.progress.facts["stuck"]


def test_another_item_that_fails_is_counted_anew(sender: Sender, clock: Clock) -> None:
    for name in ("a", "b"):
        for _ in range(3):
            sender.queue.clear()
            answers(sender, NOT_READY)
            sender.put(Call("POST", "runs/log-inputs", {"run_id": RUN, "datasets": [name]}))
            assert outcome(sender) == "waits"
            clock.now += PERSISTENCE


def test_a_run_that_always_fails_to_be_created_refuses_the_execution(sender: Sender, clock: Clock) -> None:
    answers(sender, *[NOT_READY] * 20)
    sender.put(vital())
    outcomes = []
    for _ in range(4):
        outcomes.append(outcome(sender))
        clock.now += PERSISTENCE / 3
    assert outcomes == ["waits"] * 3 + ["refused"]


DELETED = {"run": {"info": {"lifecycle_stage": "deleted"}}}
CAN_SEE = {"experiment": {}, "experiment_id": "7"}


@pytest.mark.parametrize(
    ("run", "experiment", "expected"),
    [
        (DELETED, CAN_SEE, f"run {GIVEN} was deleted: `mlflow runs restore --run-id {GIVEN}` restores it"),
        (MISSING, CAN_SEE, f"run {GIVEN} is no longer on the server: it was deleted for good"),
        (HIDDEN, CAN_SEE, f"run {GIVEN} is no longer on the server: it was deleted for good"),
        (HIDDEN, HIDDEN, ""),
        (DENIED, CAN_SEE, ""),
        (BROKEN, CAN_SEE, ""),
        (None, CAN_SEE, ""),
    ],
)
@pytest.mark.parametrize("item", [own, inputs])
def test_a_run_that_is_gone_refuses_the_execution(
    sender: Sender, item: Any, run: Any, experiment: Any, expected: str
) -> None:
    sender.progress.note(run={"run_id": GIVEN, "experiment_id": "7"})
    rest = answers(sender, *[INVALID] * ALWAYS)
    rest.answers = {"runs/get": run, "experiments/get": experiment}
    sender.put(item())
    if expected:
        with pytest.raises(ServerRefusesError) as raised:
            sender.flush()
        assert str(raised.value) == expected
    else:
        assert outcome(sender) == "set aside"


@pytest.mark.parametrize("item", [foreign, file, register])
def test_a_run_that_is_gone_says_nothing_of_other_items(sender: Sender, item: Any) -> None:
    rest = answers(sender, *[INVALID] * ALWAYS)
    rest.answers = {"runs/get": DELETED}
    sender.put(item())
    assert outcome(sender) == "set aside"


@pytest.mark.parametrize("names", [["poison"], ["poison", "b"], ["a", "b", "poison", "c", "d"], list("abcdefg")])
def test_of_a_batch_only_the_value_that_fails_is_set_aside(sender: Sender, names: list[str]) -> None:
    rest = answers(sender)
    rest.poison = "poison"
    sender.put(Batch(RUN, [point(name) for name in names], {f"p-{name}": "x" for name in "xy"}, {"t": "x"}))
    assert outcome(sender) == ("set aside" if "poison" in names else "delivered")
    stored = {name for request in rest.stored for name in request.partition(": ")[2].split()}
    assert stored == {*names, "p-x", "p-y", "t"} - {"poison"}
    assert [line.partition(" of run ")[0] for line in sender.describe_aside()] == ["poison"] * ("poison" in names)


def test_a_denied_batch_is_not_divided(sender: Sender) -> None:
    rest = answers(sender, *[DENIED] * ALWAYS)
    sender.put(Batch(FOREIGN, params={"a": "1", "b": "2"}))
    assert outcome(sender) == "set aside"
    assert [line.partition(" of run ")[0] for line in sender.describe_aside()] == ["a, b"]
    assert len(rest.errors) == ALWAYS - 3


def test_a_batch_of_a_run_that_is_gone_is_not_divided(sender: Sender) -> None:
    rest = answers(sender, *[MISSING] * ALWAYS)
    rest.answers = {"runs/get": MISSING}
    sender.put(Batch(FOREIGN, params={"a": "1", "b": "2"}))
    assert outcome(sender) == "set aside" and len(rest.errors) == ALWAYS - 1


def test_what_is_behind_an_item_that_was_set_aside_is_delivered(sender: Sender) -> None:
    rest = answers(sender, INVALID)
    for item in (inputs(), file(), own()):
        sender.put(item)
    assert outcome(sender) == "set aside" and rest.stored == ["a.txt", "a: t"]


def test_content_that_cannot_be_read_is_set_aside(sender: Sender) -> None:
    answers(sender)
    sender.put(File(ROOT, "MLmodel", lambda: [b"\xff"]))
    assert outcome(sender) == "set aside" and "UnicodeDecodeError" in sender.describe_aside()[0]


def test_a_file_without_its_copy_or_its_folder_is_set_aside(sender: Sender) -> None:
    answers(sender)
    sender.put(File(ROOT, "a.txt", lambda: [b"x"], sender.folder / "gone"))
    sender.put(File(OTHER, "b.txt", lambda: [b"x"]))
    assert outcome(sender) == "set aside"
    assert [line.partition(": ")[2].partition(" ")[0] for line in sender.describe_aside()] == ["gone", "?"]


KEPT = {
    "a batch that is denied": (foreign, DENIED, True),
    "a batch that fails": (foreign, BROKEN, True),
    "a batch that is invalid": (foreign, INVALID, False),
    "a request that is denied": (inputs, DENIED, True),
    "a request that fails": (inputs, BROKEN, True),
    "a request that is invalid": (inputs, INVALID, False),
    "a request to the registry that is denied": (register, DENIED, True),
    "a request to the registry that is invalid": (register, INVALID, True),
}


@pytest.mark.parametrize(("item", "error", "again"), KEPT.values(), ids=KEPT)
def test_what_may_be_accepted_later_is_kept_and_sent_again(
    sender: Sender, clock: Clock, item: Any, error: Exception, again: bool
) -> None:
    answers(sender, *[error] * ALWAYS)
    sender.put(item())
    assert outcome(sender) == "set aside"
    clock.now += PERSISTENCE
    rest = answers(sender)
    sender.retry_aside()
    assert (len(rest.stored), len(sender.aside())) == ((1, 0) if again else (0, 1))


def test_a_file_is_kept_and_sent_again(sender: Sender) -> None:
    answers(sender, *[DENIED] * ALWAYS)
    sender.put(file())
    assert outcome(sender) == "set aside"
    (kept,) = (sender.folder / "files").iterdir()
    assert kept.read_bytes() == b"x"
    rest = answers(sender)
    sender.retry_aside()
    assert rest.stored == ["a.txt"] and sender.aside() == [] and not kept.exists()


@pytest.mark.parametrize(("later", "waits"), [(1, True), (PERSISTENCE - 5, True), (PERSISTENCE, False), (-10, False)])
def test_what_failed_less_than_a_minute_ago_is_waited_for(
    sender: Sender, clock: Clock, later: float, waits: bool
) -> None:
    answers(sender, *[BROKEN] * ALWAYS)
    sender.put(inputs())
    assert outcome(sender) == "set aside"
    clock.now += later
    answers(sender, BROKEN)
    if waits:
        with pytest.raises(ServerError, match="a bug"):
            sender.retry_aside()
    else:
        sender.retry_aside()
    assert len(sender.aside()) == 1


@pytest.mark.parametrize(("tag", "left"), [("t", 0), ("other", 1)])
def test_a_tag_that_was_set_since_is_not_set_again(sender: Sender, tag: str, left: int) -> None:
    answers(sender, *[BROKEN] * 3)
    sender.put(own())
    assert outcome(sender) == "set aside"
    sender.put(Batch(RUN, tags={tag: "newer"}))
    sender.flush()
    assert len(sender.aside()) == left


def test_one_item_is_set_aside_once(sender: Sender) -> None:
    for _ in range(2):
        answers(sender, INVALID)
        sender.put(own())
        assert outcome(sender) == "set aside"
    assert len(sender.aside()) == 1


ORDER: dict[str, tuple[list[Item], list[str]]] = {
    "batches of one run": ([own(), Batch(RUN, params={"p": "1"})], ["a: p t"]),
    "another run's between them": ([own(), foreign(), own()], ["a: t", "b: t", "a: t"]),
    "a file between them": ([own(), file(), own()], ["a: t", "a.txt", "a: t"]),
    "another value of a parameter": ([Batch(RUN, params={"p": "1"}), Batch(RUN, params={"p": "2"})], ["a: p", "a: p"]),
    "the same value of a parameter": ([Batch(RUN, params={"p": "1"}), Batch(RUN, params={"p": "1"})], ["a: p"]),
}


@pytest.mark.parametrize(("items", "requests"), ORDER.values(), ids=ORDER)
def test_items_are_sent_in_order_in_few_requests(sender: Sender, items: list[Item], requests: list[str]) -> None:
    rest = answers(sender)
    for item in items:
        sender.put(item)
    sender.flush()
    assert rest.stored == requests


def test_nothing_is_added_to_a_batch_that_has_failed(sender: Sender) -> None:
    answers(sender, NOT_READY)
    sender.put(own())
    assert outcome(sender) == "waits"
    sender.put(own())
    assert len(sender.queue) == 2


@pytest.mark.parametrize(
    ("item", "again"),
    [
        (own, False),
        (foreign, True),
        (inputs, False),
        (file, False),
        (lambda: File(OTHER, "b.txt", lambda: [b"x"]), True),
        (lambda: Batch(GIVEN, tags={"t": "x"}), False),
    ],
)
def test_of_a_run_that_moves_only_what_is_its_own_is_sent_again(sender: Sender, item: Any, again: bool) -> None:
    """A run is created again in another experiment; the rest of its journal is on the server already."""
    sender.moving = True
    sender.put(item())
    assert len(sender.queue) == (not again)


def test_what_is_on_the_server_already_is_not_sent_again(sender: Sender) -> None:
    sender.replaying = True
    for make in ITEMS.values():
        sender.put(make())
    assert not sender.queue


FOUND = {"run": {"info": {"run_id": 32 * "c", "artifact_uri": "mlflow-artifacts:/7/c"}}}


@pytest.mark.parametrize(
    ("resumed", "there", "created"),
    [(False, [], 1), (True, [], 1), (True, [FOUND["run"]], 0), (False, [FOUND["run"]], 1)],
)
def test_a_run_is_searched_for_before_it_is_created_a_second_time(
    tmp_path: Path, clock: Clock, resumed: bool, there: list[Any], created: int
) -> None:
    if resumed:
        Sender(tmp_path, "http://127.0.0.1:9").progress.note(offset=5)
    sender = Sender(tmp_path, "http://127.0.0.1:9")
    rest = answers(sender)
    rest.answers = {"runs/search": {"runs": there}}
    made: list[str] = []
    create = rest.call

    def call(method: str, path: str, /, **fields: Any) -> dict[str, Any]:
        if path == "runs/create":
            made.append(path)
            return FOUND
        return create(method, path, **fields)

    rest.call = call  # type: ignore[method-assign]
    body = {"experiment_id": "7", "tags": [{"key": LOCAL_ID, "value": RUN}]}
    sender.put(Call("POST", "runs/create", body, RUN, "run", ROOT))
    sender.flush()
    assert (len(made), sender.progress.ids) == (created, {RUN: 32 * "c", ROOT: "mlflow-artifacts:/7/c"})
