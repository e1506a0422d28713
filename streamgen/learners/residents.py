"""Where each learner is: in a row of the slab, or, beyond `max_resident`, in the page file.

The learner that was used least recently goes first. Where a learner is shows in no bit of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from pathlib import Path

from streamgen.learners.paging import PageFile
from streamgen.models.online import Learner, OnlineModel
from streamgen.models.slab import Slab
from streamgen.state.checkpoint import Fields, LearnerState


class Residents:
    """The learners of a task, by key. `name` gives the name of a key's learner."""

    def __init__(
        self,
        model: OnlineModel,
        slab: Slab,
        name: Callable[[str | None], Learner],
        most: int | None,
        directory: Path | None,
    ) -> None:
        self._model, self._slab, self._name, self._most = model, slab, name, most
        self.rows: OrderedDict[str | None, int] = OrderedDict()  # of the resident ones, least used first
        self.learners: list[Learner] = []  # by row; those of free rows are void
        self.pages = PageFile(slab.own, directory)
        self._keys: dict[str | None, None] = {}  # of all learners, in the order in which they came

    def __contains__(self, key: str | None) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def use(self, key: str | None, busy: Container[str | None] = ()) -> int | None:
        """The row of a learner, brought into memory if it is not; a key's first use starts its learner.

        None, and nothing changes, when there is no room but in the rows of `busy` learners, which must be
        the ones used last.
        """
        row = self.rows.get(key)
        if row is not None:
            if self._most is not None:
                self.rows.move_to_end(key)
            return row
        if not self._room(busy):
            return None
        if key in self.pages:
            row = self._place(key, self.pages.read(key))
            self.pages.discard(key)
            return row
        row = self._take(key)
        self._keys[key] = None
        self._model.start(self._slab, row, self.learners[row])
        return row

    def put(self, key: str | None, fields: Fields) -> None:
        """Take on a learner that `copy` gave. Raises `StateError` when its fields are not the slab's."""
        self._room(())
        self._place(key, fields)
        self._keys[key] = None

    def copy(self, key: str | None) -> LearnerState:
        """A learner's state, wherever it is; it stays there."""
        row = self.rows.get(key)
        if row is None:
            return LearnerState(key, self.pages.read(key))
        self._model.collect(self._slab, row)
        return LearnerState(key, self._slab.row(row))

    def remove(self, key: str | None) -> None:
        """There is no learner of the key any more."""
        if key in self.rows:
            self._leave(key)
        else:
            self.pages.discard(key)
        del self._keys[key]

    def compact(self) -> None:
        """Give back memory when most of it is free. Rows change: not while a batch is under way."""
        if not self._slab.sparse:
            return
        for row in self.rows.values():
            self._model.collect(self._slab, row)
            self._model.release(self._slab, row)
        moved = self._slab.compact()
        learners = {moved[row]: self.learners[row] for row in self.rows.values()}
        self.learners = [learners[row] for row in range(len(learners))]
        for key, row in self.rows.items():
            self.rows[key] = moved[row]
            self._model.adopt(self._slab, moved[row], learners[moved[row]])

    def _room(self, busy: Container[str | None]) -> bool:
        """Make room for one more learner in memory; whether there is."""
        if self._most is None or len(self.rows) < self._most:
            return True
        oldest = next(iter(self.rows))
        if oldest in busy:
            return False
        self.pages.write(oldest, self.copy(oldest).fields)
        self._leave(oldest)
        return True

    def _place(self, key: str | None, fields: Fields) -> int:
        row = self._take(key)
        self._slab.load(row, fields)
        self._model.adopt(self._slab, row, self.learners[row])
        return row

    def _take(self, key: str | None) -> int:
        """A row with its fill values."""
        row = self.rows[key] = self._slab.add()
        self.learners[row : row + 1] = [self._name(key)]
        return row

    def _leave(self, key: str | None) -> None:
        row = self.rows.pop(key)
        self._model.release(self._slab, row)
        self._slab.remove(row)
