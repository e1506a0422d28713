"""Where a configuration keeps its state: the store, and what is done to one from outside a worker."""

from __future__ import annotations

from collections.abc import Iterable

from streamgen.config import Config
from streamgen.errors import StateError
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Checkpoint, LearnerState, Manifest
from streamgen.state.store import Store


def open_store(config: Config) -> Store:
    """The store that `state.store` names. Raises `MissingDependency`, `ConfigError`."""
    if config.state.store == "kafka":
        from streamgen.state.on_kafka import KafkaStore

        return KafkaStore(config.kafka, config.application_id)
    from streamgen.state.files import FileStore  # its file systems take time to import

    return FileStore(config.state.store)


def place(config: Config) -> str:
    """The store in words."""
    if config.state.store == "kafka":
        return f"the topic {config.application_id}-state"
    return config.state.store


def put(store: Store, checkpoint: Checkpoint, manifest: Manifest) -> Manifest:
    """Store a checkpoint's learners under `manifest`, in place of what the store has of that task.

    Whoever owned the task there is fenced. Raises as `TaskStore.read` and `write` do.
    """
    task = store.claim(manifest.source)
    try:
        task.read(-1)  # nothing that is there can be gone on from
        learners = (LearnerState(key, fields) for key, fields in checkpoint.learners.items())
        return task.write(manifest, learners, ())
    finally:
        task.close()


def forget(config: Config, sources: Iterable[TopicPartition]) -> None:
    """Remove these tasks' checkpoints; whoever owned a task on Kafka is fenced. Raises `StateError`,
    `RetryError`."""
    if config.state.store == "kafka":
        from streamgen.state.on_kafka import KafkaStore

        for source in sources:
            task = KafkaStore(config.kafka, config.application_id).claim(source)
            try:
                task.forget()
            finally:
                task.close()
        return
    from streamgen.state.folder import open_folder

    for source in sources:
        folder = open_folder(config.state.store).inside(str(source))
        for name in folder.names():
            folder.remove(name)


def damaged(config: Config, source: TopicPartition) -> list[str]:
    """What is wrong with a task's checkpoints: a sentence each. On files also with those that a worker would
    pass over for another."""
    if config.state.store == "kafka":
        try:
            open_store(config).peek(source)
        except StateError as error:
            return [str(error)]
        return []
    from streamgen.state.folder import open_folder
    from streamgen.state.stacked import decode

    folder, found = open_folder(config.state.store).inside(str(source)), []
    for name in folder.names():
        if name.endswith(".safetensors") and not name.startswith("."):
            try:
                decode(folder.read(name), f"in {folder}/{name}")
            except FileNotFoundError:
                continue  # its owner has replaced it
            except StateError as error:
                found.append(str(error))
    return found
