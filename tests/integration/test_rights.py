"""The rights that docs/security.md lists are enough, and each of them is needed: on a broker with ACLs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient

from consumers.images import run_image_learner
from consumers.online import run_worker
from producers.generator import run_publisher
from producers.images import run_image_publisher
from streamgen.config import Config, ImagesConfig, InputConfig, KafkaConfig, MetricsConfig, StateConfig
from streamgen.errors import PermissionDenied
from streamgen.kafka.client import client_settings
from streamgen.kafka.pins import state_topic
from streamgen.kafka.rights import check_rights
from streamgen.kafka.topics import (
    NewTopic,
    create_topics,
    delete_topic,
    ensure_compacted,
    ensure_publishing_topics,
    ensure_topics,
    partition_count,
)
from tests.integration.rights_page import Right, rights
from tests.integration.secured import CERTIFIED, PASSWORD, USERS, Secured

if TYPE_CHECKING:
    from tests.conftest import Said

WAYS = [*USERS, "TLS"]
USER = USERS["SCRAM-SHA-512"]


def way_in(secured: Secured, way: str) -> tuple[KafkaConfig, str]:
    return (secured.mutual_tls(), CERTIFIED) if way == "TLS" else (secured.sasl(way), USERS[way])


@pytest.fixture
def made(secured: Secured, fresh: Callable[[str], str], tmp_path: Path) -> Config:
    """An application whose topics are all there, and 40 records in its input."""
    source = InputConfig(topic=fresh("guarded"))
    config = Config(
        kafka=secured.sasl(),
        application_id=fresh("app"),
        inputs=[source],
        state=StateConfig(directory=str(tmp_path / "state")),
        metrics=MetricsConfig(port=None),
    )
    create_topics(secured.inner, [NewTopic(source.topic)])
    ensure_topics(config.model_copy(update={"kafka": secured.inner}))
    ensure_compacted(secured.inner, state_topic(config.application_id))
    secured.send(source.topic, 40)
    return config


def of(config: Config, who: str) -> list[Right]:
    return rights(who, config.inputs[0].topic, config.application_id)


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_runs_with_what_the_page_lists(secured: Secured, made: Config, way: str) -> None:
    kafka, user = way_in(secured, way)
    config = made.model_copy(update={"kafka": kafka})
    with secured.granted([right.granted_to(user) for right in of(made, "worker")]):
        run_worker(config, None, until(lambda: len(secured.read(made.inputs[0].scores_topic)) >= 40))
    found = [json.loads(value) for value in secured.read(made.inputs[0].scores_topic)]
    assert [score["source"]["offset"] for score in found] == list(range(40))


def until(done: Callable[[], bool], seconds: float = 60) -> Callable[[], bool]:
    """A worker's `stopping`, which looks now and then."""
    deadline, looked = time.monotonic() + seconds, time.monotonic()

    def stopping() -> bool:
        nonlocal looked
        assert time.monotonic() < deadline
        if time.monotonic() - looked < 0.3:
            return False
        looked = time.monotonic()
        return done()

    return stopping


def test_a_worker_makes_its_topics_with_what_the_page_lists(
    secured: Secured, fresh: Callable[[str], str], tmp_path: Path
) -> None:
    config = Config(
        kafka=secured.sasl(),
        application_id=fresh("app"),
        inputs=[InputConfig(topic=fresh("bare"))],
        state=StateConfig(directory=str(tmp_path / "state")),
        metrics=MetricsConfig(port=None),
    )
    create_topics(secured.inner, [NewTopic(config.inputs[0].topic)])
    secured.send(config.inputs[0].topic, 5)
    needed = of(config, "worker") + of(config, "worker that makes its topics")
    for absent in of(config, "worker that makes its topics"):
        with (
            secured.granted([right.granted_to(USER) for right in needed if right != absent]),
            pytest.raises(
                PermissionDenied, match=f"lacks rights on Kafka: Create on the topic {absent.name},"
            ),
        ):
            check_rights(config)
    with secured.granted([right.granted_to(USER) for right in needed]):
        run_worker(config, None, until(lambda: len(secured.read(config.inputs[0].scores_topic)) >= 5))


def test_each_right_of_a_worker_is_needed_and_named_at_its_start(secured: Secured, made: Config) -> None:
    needed = of(made, "worker")
    assert len(needed) == 10
    for absent in needed:
        resource = {"Topic": "the topic", "Group": "the group", "TransactionalId": "the transactional ids"}
        with (
            secured.granted([right.granted_to(USER) for right in needed if right != absent]),
            pytest.raises(PermissionDenied) as refused,
        ):
            run_worker(made, None, lambda: pytest.fail("the worker got as far as to read"))
        said = str(refused.value)
        # Of a topic that it may not even describe the broker tells nothing: all rights on that one are named.
        assert said.startswith(f"This user ({USER}) lacks rights on Kafka: "), absent
        named = said.partition(": ")[2].partition(". Grant")[0]
        assert absent.operation in named, absent
        assert f"on {resource[absent.resource]} " in named, absent
        assert absent.name in named, absent
        assert ";" not in named, "another right is named"
    with KafkaAdminClient(**client_settings(secured.inner)) as admin:
        assert made.application_id not in {group["group_id"] for group in admin.list_groups()}


@pytest.fixture
def learned(made: Config, secured: Secured) -> Config:
    """`made`, with a checkpoint."""
    within = made.model_copy(update={"kafka": secured.inner})
    run_worker(within, None, until(lambda: len(secured.read(made.inputs[0].scores_topic)) >= 40))
    return made


def test_a_publisher_runs_with_what_the_page_lists(secured: Secured, learned: Config) -> None:
    source = learned.inputs[0]
    bare = of(learned, "publisher") + of(learned, "publisher that makes its topics")
    for absent in of(learned, "publisher that makes its topics"):
        with (
            secured.granted([right.granted_to(USER) for right in bare if right != absent]),
            pytest.raises(PermissionDenied, match=f"Create on the topic {absent.name},"),
        ):
            run_publisher(learned, None, lambda: pytest.fail("the publisher got as far as to read"))
    with secured.granted([right.granted_to(USER) for right in bare]):
        run_publisher(learned, None, lambda: True)  # makes its topics
    secured.send(source.generate_topic, 2)  # requests that are none
    with secured.granted([right.granted_to(USER) for right in of(learned, "publisher")]):
        run_publisher(learned, None, until(lambda: len(secured.read(source.generate_dlq_topic)) >= 2))


def test_each_right_of_a_publisher_is_needed_and_named_at_its_start(
    secured: Secured, learned: Config
) -> None:
    ensure_publishing_topics(learned.model_copy(update={"kafka": secured.inner}))
    needed = of(learned, "publisher")
    assert len(needed) == 10
    for absent in needed:
        with (
            secured.granted([right.granted_to(USER) for right in needed if right != absent]),
            pytest.raises(PermissionDenied) as refused,
        ):
            run_publisher(learned, None, lambda: pytest.fail("the publisher got as far as to read"))
        named = str(refused.value).partition(": ")[2].partition(". Grant")[0]
        assert absent.operation in named, absent
        assert absent.name in named, absent
        assert ";" not in named, "another right is named"


Run = Callable[[Config, Callable[[], bool]], None]


def image_publisher(config: Config, stopping: Callable[[], bool]) -> None:
    run_image_publisher(config, f"{config.state.directory}-images", None, stopping)


def image_learner(config: Config, stopping: Callable[[], bool]) -> None:
    topic = config.inputs[0].topic
    images = ImagesConfig(topic=topic, store=f"{config.state.directory}-images")
    run_image_learner(config.model_copy(update={"images": images}), None, stopping)


@pytest.mark.parametrize(
    ("who", "run", "rights_needed"),
    [("image publisher", image_publisher, 9), ("image learner", image_learner, 5)],
)
def test_each_right_of_a_process_for_images_is_needed_and_named_at_its_start(
    secured: Secured,
    made: Config,
    who: str,
    run: Run,
    rights_needed: int,
) -> None:
    ensure_publishing_topics(made.model_copy(update={"kafka": secured.inner}))
    needed = of(made, who)
    assert len(needed) == rights_needed
    for absent in needed:
        with (
            secured.granted([right.granted_to(USER) for right in needed if right != absent]),
            pytest.raises(PermissionDenied) as refused,
        ):
            run(made, lambda: pytest.fail("it got as far as to read"))
        named = str(refused.value).partition(": ")[2].partition(". Grant")[0]
        assert absent.operation in named, absent
        assert absent.name in named, absent
        assert ";" not in named, "another right is named"
    turns = iter(range(20))
    with secured.granted([right.granted_to(USER) for right in needed]):
        run(made, lambda: next(turns, None) is None)  # joins, reads, and finds nothing to do


def test_an_image_learner_makes_its_topic_with_what_the_page_lists(secured: Secured, made: Config) -> None:
    delete_topic(secured.inner, made.inputs[0].dlq_topic)
    needed = of(made, "image learner")
    with (
        secured.granted([right.granted_to(USER) for right in needed]),
        pytest.raises(PermissionDenied) as refused,
    ):
        image_learner(made, lambda: pytest.fail("it got as far as to read"))
    assert f"Create on the topic {made.inputs[0].dlq_topic}," in str(refused.value)
    needed += of(made, "image learner that makes its topic")
    with secured.granted([right.granted_to(USER) for right in needed]):
        image_learner(made, lambda: True)
    assert partition_count(secured.inner, made.inputs[0].dlq_topic) == 1


def test_all_that_is_missing_is_named_at_once(secured: Secured, made: Config) -> None:
    with pytest.raises(PermissionDenied) as refused:
        check_rights(made)
    for right in of(made, "worker"):
        assert right.name in str(refused.value)
        assert right.operation in str(refused.value)


def test_a_right_taken_away_from_a_running_worker_ends_it(secured: Secured, made: Config) -> None:
    source = made.inputs[0]
    acls = {right: right.granted_to(USER) for right in of(made, "worker")}

    def take_it_then_send() -> bool:
        if secured.read(source.scores_topic):
            secured.take_away([acl for right, acl in acls.items() if right.name == source.scores_topic])
            secured.send(source.topic, 5)
        return False

    with secured.granted(list(acls.values())), pytest.raises(PermissionDenied, match="refused publishing"):
        run_worker(made, None, until(take_it_then_send))


@pytest.fixture
def cli(
    cli: Callable[..., Said], secured: Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Said]:
    """Run a command as USER."""
    kafka = secured.sasl()
    settings = {"sasl_password": PASSWORD} | kafka.model_dump(
        mode="json", exclude={"sasl_password"}, exclude_none=True
    )
    for name, value in settings.items():
        monkeypatch.setenv(f"STREAMGEN_KAFKA__{name}", str(value))
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def command(made: Config, tmp_path: Path) -> Callable[[str], list[object]]:
    """What to type for each command that the page lists, over the application's topics."""
    topic = made.inputs[0].topic
    (tmp_path / "rows.jsonl").write_text('{"load": 1}\n')
    (tmp_path / "c.yaml").write_text(
        f"application_id: {made.application_id}\ninputs: [{{topic: {topic}, features: [a]}}]\n"
    )
    typed = {
        "doctor": ["doctor", "c.yaml"],
        "replay": ["replay", "rows.jsonl", "--topic", topic],
        "host": ["host", "--topic", topic, "--interval", 0.05, "--limit", 1],
        "watch": ["watch", topic, "--for", 0.3],
        "state list": ["state", "list", "c.yaml"],
        "state show": ["state", "show", topic, 0, "c.yaml"],
        "state verify": ["state", "verify", "c.yaml"],
        "state export": ["state", "export", tmp_path / "exported", "c.yaml"],
        "state rebuild": ["state", "rebuild", "c.yaml"],
        "state reset": ["state", "reset", "c.yaml", "--yes"],
    }
    return typed.__getitem__


@pytest.mark.parametrize("name", ["doctor", "replay", "host", "watch"])
def test_a_command_runs_with_what_the_page_lists_and_not_with_less(
    secured: Secured,
    made: Config,
    cli: Callable[..., Said],
    command: Callable[[str], list[object]],
    name: str,
) -> None:
    needed = of(made, name)
    with secured.granted([right.granted_to(USER) for right in needed]):
        code, out, err = cli(*command(name))
        assert code == 0, out + err
    for absent in needed:
        with secured.granted([right.granted_to(USER) for right in needed if right != absent]):
            code, out, err = cli(*command(name))
        assert code == 1, f"not needed: {absent}"
        said = out + err
        assert absent.name in said
        if name == "doctor":
            assert "✗ This user" in out
            assert absent.operation in said
        else:
            # Before it the client's own lines may stand.
            assert said.splitlines()[-1].startswith("streamgen: This user may not see the topic")


@pytest.mark.parametrize("name", ["list", "show", "verify", "export", "rebuild", "reset"])
def test_state_is_looked_at_and_changed_with_what_the_page_lists_and_not_with_less(
    secured: Secured,
    made: Config,
    cli: Callable[..., Said],
    command: Callable[[str], list[object]],
    name: str,
) -> None:
    within = made.model_copy(update={"kafka": secured.inner})
    run_worker(within, None, until(lambda: len(secured.read(made.inputs[0].scores_topic)) >= 40))
    needed = of(made, f"state {name}")
    for absent in needed:
        with secured.granted([right.granted_to(USER) for right in needed if right != absent]):
            code, out, err = cli(*command(f"state {name}"))
        assert code == 1, f"not needed: {absent}: {out}"
        said = err.splitlines()[-1]  # before it the client's own lines may stand
        assert said.startswith("streamgen: ")
        assert absent.name in said
    with secured.granted([right.granted_to(USER) for right in needed]):
        code, out, err = cli(*command(f"state {name}"))
        assert code == 0, out + err


def test_settings_are_compared_over_a_topic_with_the_right_to_read_it_alone(
    secured: Secured, made: Config, cli: Callable[..., Said], tmp_path: Path
) -> None:
    topic = made.inputs[0].topic
    secured.send(topic, 300)
    typed = (
        "tune",
        topic,
        "--study",
        tmp_path / "study",
        "--vary",
        "hidden=2",
        "--seeds",
        2,
        "--records",
        280,
    )
    with secured.granted([right.granted_to(USER) for right in of(made, "tune")]):
        code, out, err = cli(*typed)
    assert code == 0, out + err
    code, _, err = cli(*typed[:3], tmp_path / "other", *typed[4:])
    assert code == 1
    assert err.splitlines()[-1].startswith("streamgen: This user may not see the topic")


def test_scores_can_be_watched_by_the_name_of_their_topic(
    secured: Secured, made: Config, cli: Callable[..., Said]
) -> None:
    """A topic of that name with `.scores` behind it would be another one, which this user may not see."""
    with secured.granted([right.granted_to(USER) for right in of(made, "watch")]):
        code, out, err = cli("watch", made.inputs[0].scores_topic, "--for", 0.3)
    assert code == 0, err
    assert "0 records" in out


def test_topics_are_made_with_what_the_page_lists_and_not_with_less(
    secured: Secured, cli: Callable[..., Said], fresh: Callable[[str], str]
) -> None:
    topic = fresh("wanted")
    needed = rights("topics", topic, "none")
    for n, absent in enumerate(needed):
        other = f"{topic}-{n}"  # each attempt with topics of its own, since some are made before it fails
        left = rights("topics", other, "none")
        del left[n]
        with secured.granted([right.granted_to(USER) for right in left]):
            code, out, err = cli("topics", other)
        assert code == 1, f"not needed: {absent}: {out}"
        assert absent.name.replace(topic, other) in err
        assert absent.operation in err
        assert err.count("\n") == 1
    with secured.granted([right.granted_to(USER) for right in needed]):
        code, out, err = cli("topics", topic)
        assert code == 0, err
        assert len(out.splitlines()) == 4
        assert cli("topics", topic) == (0, "all topics are there\n", "")
    # And who may not make topics is not kept from those that are there.
    with secured.granted([right.granted_to(USER) for right in needed if right.operation != "Create"]):
        assert cli("topics", topic) == (0, "all topics are there\n", "")


def test_the_topics_of_a_publisher_are_made_with_what_the_page_lists(
    secured: Secured, cli: Callable[..., Said], fresh: Callable[[str], str]
) -> None:
    """The second time they are there, and looked at."""

    def twice(topic: str, left: list[Right]) -> list[Said]:
        with secured.granted([right.granted_to(USER) for right in left]):
            return [cli("topics", topic, "--generated") for _ in range(2)]

    def needed(topic: str) -> list[Right]:
        return rights("topics", topic, "none") + rights("topics --generated", topic, "none")

    topic = fresh("generated")
    for n, absent in enumerate(needed(topic)):
        other = f"{topic}-{n}"
        left = needed(other)
        del left[n]
        failed = [err for code, _, err in twice(other, left) if code]
        assert failed, f"not needed: {absent}"
        assert absent.operation in failed[0]
        assert absent.name.replace(topic, other) in failed[0]
    first, second = twice(topic, needed(topic))
    assert len(first[1].splitlines()) == 7
    assert second == (0, "all topics are there\n", "")
