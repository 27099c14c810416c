"""The memory that the objects of a run share: how many at once, and how many bytes of originals."""

from threading import Condition, Lock
from typing import Protocol


class Memory(Protocol):
    """The bytes of originals that an object may take."""

    def take(self, size: int) -> bool:
        """Reserve bytes; return False if too few are left."""
        ...

    def give_back(self, size: int) -> None:
        """Return bytes that were reserved but not used."""
        ...


class Room:
    """Objects and bytes of originals that may be in memory at once. Threads are served in turn."""

    def __init__(self, objects: int, size: int) -> None:
        """Start empty.

        Args:
            objects: most objects at once.
            size: most bytes at once; a larger object is let in alone.
        """
        self.size = size
        self._objects = objects
        self._bytes = size
        self._holders = 0
        self._is_closed = False
        self._changed = Condition()
        self._turn = Lock()

    def enter(self, size: int) -> bool:
        """Wait until an object of this size fits, and let it in; return False once closed."""
        size = min(size, self.size)
        # A waiting thread blocks those behind it, or small objects would starve a large one.
        with self._turn, self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or (self._objects > 0 and self._bytes >= size)
            )
            if self._is_closed:
                return False
            self._objects -= 1
            self._bytes -= size
            self._holders += 1
            return True

    def more(self, size: int) -> bool:
        """Reserve further bytes for an object inside, without waiting; return False if too few.

        The only one that holds bytes always gets them, or it could never be read.
        """
        with self._changed:
            if size > self._bytes and self._holders > 1:
                return False
            self._bytes -= size
            return True

    def drop(self, size: int) -> None:
        """Free all bytes of an object, which stays inside."""
        with self._changed:
            self._bytes += size
            self._holders -= 1
            self._changed.notify_all()

    def leave(self) -> None:
        """Let an object out that holds no bytes any more."""
        with self._changed:
            self._objects += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in from now on, nor wait."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Share:
    """What one object inside holds of the room's bytes."""

    def __init__(self, room: Room, claimed: int) -> None:
        """Hold the bytes with which the object has entered.

        Args:
            room: the room that it has entered.
            claimed: its size, as an event or a listing claims it.
        """
        self._room = room
        self._held = min(claimed, room.size)
        self._allowed = claimed
        self._used = 0

    def take(self, size: int) -> bool:
        """Use bytes; return False if the room has too few for what exceeds the claim."""
        lacking = self._used + size - self._allowed
        if lacking > 0:
            if not self._room.more(lacking):
                return False
            self._held += lacking
            self._allowed += lacking
        self._used += size
        return True

    def give_back(self, size: int) -> None:
        """Return bytes that were taken but not used."""
        self._used -= size

    def drop(self) -> None:
        """Free the bytes, once the original is no longer in memory."""
        self._room.drop(self._held)
