"""What a reader keeps in memory of what never changes in the registry: names that are taken, key sets already read."""

from __future__ import annotations

import threading
from collections import OrderedDict

from marketplace.namespaces import KeySet, read_key_set
from marketplace.registry.tables import Tables, ask
from marketplace.rules.names import kept_under, looked_up

KEY_SETS = 1_024
"""Key sets kept. Reading one means checking all its signatures."""


class TakenNames:
    """The ids of all plugins. They are never free again, so only those that are new are asked for. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self._lock = tables, threading.Lock()
        self._last, self._publishers = 0, set[str]()
        self._kept: dict[str, list[str]] = {}

    def near(self, plugin: str) -> list[str]:
        """The ids of other publishers' plugins whose name, or publisher's name, could be alike; some are
        not. Blocking."""
        publisher, _, name = plugin.partition("/")
        keys = [f"publisher {key}" for key in looked_up(publisher)] + [f"name {key}" for key in looked_up(name)]
        with self._lock:
            self._catch_up()
            found = dict.fromkeys(other for key in keys for other in self._kept.get(key, ()))
        return [other for other in found if not other.startswith(f"{publisher}/")]

    def _catch_up(self) -> None:
        with self._tables.read() as connection:
            query = "SELECT id, plugin FROM plugins WHERE id > ? ORDER BY id"
            found = ask(connection, query, (self._last,))
        for number, plugin in found:
            publisher, _, name = plugin.partition("/")
            keys = [f"name {key}" for key in kept_under(name)]
            if publisher not in self._publishers:  # one of its plugins says that it is there
                self._publishers.add(publisher)
                keys += [f"publisher {key}" for key in kept_under(publisher)]
            for key in keys:
                self._kept.setdefault(key, []).append(plugin)
            self._last = number


class KeySets:
    """Key sets by their documents, which say all there is of them. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._read = threading.Lock(), OrderedDict[bytes, KeySet]()

    def read(self, document: bytes) -> KeySet:
        """The key set in a document of the registry. Raises what ``read_key_set`` raises."""
        with self._lock:
            found = self._read.get(document)
            if found is not None:
                self._read.move_to_end(document)
                return found
        found = read_key_set(document)
        with self._lock:
            self._read[document] = found
            if len(self._read) > KEY_SETS:
                self._read.popitem(last=False)
        return found
