"""One stage for all tests of faults: a filled input and what an uninterrupted run made of it.

Each test is an application of its own over the same input.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from application import Application, Store
    from checker import Outputs, Place
    from stage import Stage

RECORDS = 2000
TOPIC = "faults"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A broker of these tests' own, which they may kill."""
    from stage import Stage

    with Stage(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture(scope="session")
def inputs(stage: Stage) -> list[Place]:
    """A filled input topic: the places of its records."""
    from application import input_producer, make_input, places, send
    from stream import rows

    make_input(stage, TOPIC)
    producer = input_producer(stage)
    for row in itertools.islice(rows(seed=1), RECORDS):
        send(producer, TOPIC, row)
    producer.flush()
    producer.close()
    return places(stage, TOPIC)


@pytest.fixture(scope="session")
def whole(stage: Stage, inputs: list[Place]) -> Callable[[Store], Outputs]:
    """What an uninterrupted run makes of it, with its state in Kafka or in files."""
    from application import ends_of, uninterrupted

    made: dict[str, Outputs] = {}

    def run(store: Store) -> Outputs:
        if store not in made:
            made[store] = uninterrupted(stage, f"uninterrupted-{store}", TOPIC, ends_of(inputs), store)
        return made[store]

    return run


@pytest.fixture
def play(
    stage: Stage, inputs: list[Place], whole: Callable[[Store], Outputs]
) -> Iterator[Callable[..., Application]]:
    """A new application; at the end of the test it is drained, stopped, and held against the whole run."""
    from application import Application, ends_of, judge

    made: list[tuple[Application, Store]] = []

    def new(store: Store = "kafka", checkpoints: bool = True) -> Application:
        every = (
            {"every_records": 150, "every_seconds": 1}
            if checkpoints
            else {"every_records": 100_000, "every_seconds": 600}
        )
        application = Application(stage, f"faulted-{next(_numbers)}", TOPIC, store, **every)
        made.append((application, store))
        return application

    try:
        yield new
        for application, store in made:
            stage.wait(partial(application.drained, ends_of(inputs)), 90, "result for every record")
            application.stop()
            verdict = judge(inputs, application.outputs(), whole(store))
            assert verdict.records == RECORDS
            assert verdict.findings == []
    finally:
        for application, _ in made:
            for worker in application.workers.values():
                worker.end()
        for slot in range(3):
            stage.proxy(slot).tell("heal")
