"""How aliases and states should move: the rules of the oracle, in words of its own."""

from __future__ import annotations

from collections.abc import Sequence

from model_memory import FREE, SERVABLE, Alias, Memory, Refused, require_servable


class Names(Memory):
    """Moves aliases and states."""

    # -- aliases ---------------------------------------------------------

    def set_alias(self, name: str, alias: str, number: int, expected: int | None) -> int:
        self.version(name, number)
        return self.move(name, alias, number, expected)

    def move_many(self, moves: Sequence[tuple[str, str, int, int | None]]) -> list[int]:
        if len({move[:2] for move in moves}) < len(moves):
            raise Refused("ArgumentInvalid")
        versions = [self.version(name, number) for name, _, number, _ in moves]
        for version in versions:
            require_servable(version)
        for name, alias, _, expected in moves:
            self._require_generation(name, alias, expected)
        return [self.move(name, alias, number, None) for name, alias, number, _ in moves]

    def rollback(self, name: str, alias: str, expected: int | None) -> int:
        found = self.alias(name, alias)
        self._require_generation(name, alias, expected)
        trail: list[int] = []
        for kind, _, to, _, _ in found.moves:
            if kind == "DELETE":
                trail = []
            elif kind == "ROLLBACK":
                trail.pop()
                while trail[-1] != to:
                    trail.pop()
            elif [to] != trail[-1:]:
                trail.append(to)
        versions = self.adapters[name].versions
        earlier = [to for to in trail[:-1] if to != trail[-1] and versions[to - 1].state in SERVABLE]
        if not earlier:
            raise Refused("NothingToRollBack")
        found.move("ROLLBACK", earlier[-1])
        self.events.append(("alias.set", name))
        return earlier[-1]

    def set_canary(self, name: str, alias: str, number: int, percent: int, expected: int | None) -> int:
        found = self.alias(name, alias)
        if percent:
            second = self.version(name, number)
            require_servable(self.version(name, found.version))
            require_servable(second)
            if number == found.version:
                raise Refused("ArgumentInvalid")
        self._require_generation(name, alias, expected)
        found.move("CANARY", found.version, number if percent else 0, percent)
        self.events.append(("alias.set", name))
        return len(found.moves)

    def delete_alias(self, name: str, alias: str, expected: int | None) -> int:
        found = self.alias(name, alias)
        self._require_generation(name, alias, expected)
        found.move("DELETE", 0)
        self.events.append(("alias.deleted", name))
        return len(found.moves)

    def move(self, name: str, alias: str, number: int, expected: int | None) -> int:
        require_servable(self.version(name, number))
        self._require_generation(name, alias, expected)
        found = self.adapters[name].aliases.setdefault(alias, Alias())
        found.move("SET", number)
        self.events.append(("alias.set", name))
        return len(found.moves)

    def _require_generation(self, name: str, alias: str, expected: int | None) -> None:
        found = self.adapters[name].aliases.get(alias, Alias())
        if expected not in {None, len(found.moves)} and not (found.version == 0 and expected == 0):
            raise Refused("GenerationMismatch")

    # -- states and labels -----------------------------------------------

    def move_state(self, name: str, number: int, to: str, move_aliases_to: int | None) -> str:
        version = self.version(name, number)
        if version.state == to:
            return to
        out = {"QUARANTINED": {"DELETED"}}.get(version.state, set())
        ahead = {*FREE, "QUARANTINED", "DELETED"} if version.state in FREE else out
        if to not in ahead:
            raise Refused("StateRefused")
        with self.all_or_nothing():
            if to not in SERVABLE:
                self._leave(name, number, to, move_aliases_to)
            self.enter(
                name, self.version(name, number), to, version.state if to in {"QUARANTINED", "DELETED"} else ""
            )
        return to

    def undelete(self, name: str, number: int) -> str:
        if self.version(name, number).state == "PURGED":
            raise Refused("VersionDeleted")
        return self._go_back(name, number, "DELETED")

    def release(self, name: str, number: int) -> str:
        return self._go_back(name, number, "QUARANTINED")

    def tag(self, name: str, number: int | None, key: str, value: str) -> dict[str, str]:
        """An empty value removes."""
        tags = self.adapter(name).tags if number is None else self.version(name, number).tags
        tags.pop(key, None)
        if value:
            tags[key] = value
        self.events.append(("adapter.changed" if number is None else "version.tags", name))
        return dict(sorted(tags.items()))

    def _go_back(self, name: str, number: int, expected: str) -> str:
        version = self.version(name, number)
        if version.state != expected:
            raise Refused("StateRefused")
        self.enter(name, version, version.prior or "YANKED", "")
        return version.state

    def _leave(self, name: str, number: int, to: str, target: int | None) -> None:
        aliases = self.adapters[name].aliases
        served = [alias for alias, found in sorted(aliases.items()) if number in {found.version, found.canary}]
        if target is None:
            if served and to != "QUARANTINED":
                raise Refused("VersionInUse")
            return
        if target == number:
            raise Refused("ArgumentInvalid")
        if self.version(name, target).state not in SERVABLE:
            raise Refused("StateRefused")
        for alias in served:
            if aliases[alias].version == number:
                self.move(name, alias, target, None)
        for alias in served:
            if aliases[alias].canary == number:
                aliases[alias].move("CANARY", aliases[alias].version)
                self.events.append(("alias.set", name))
