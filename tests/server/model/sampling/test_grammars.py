"""Compiling structures: what is refused and how, one compilation for all who ask, bounds of time and number."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from llguidance import LLParserLimits, LLTokenizer

from switchyard.server.engine.structure import Structure, StructureKind
from switchyard.server.errors import CompilersBusy, ServerError, StructureInvalid, StructureTooCostly
from switchyard.server.model.sampling import grammars
from switchyard.server.model.sampling.grammars import CompiledGrammar, GrammarCompilers

REGEX, SCHEMA, GRAMMAR = StructureKind.REGEX, StructureKind.JSON_SCHEMA, StructureKind.GRAMMAR


def schema(**fields: object) -> str:
    return json.dumps(fields)


def chain(rules: int) -> str:
    return "start: a0\n" + "\n".join(f'a{i}: "x" a{i + 1} | "y" a{i + 1}' for i in range(rules)) + f'\na{rules}: "z"'


@pytest.fixture
def compilers() -> Iterator[GrammarCompilers]:
    with GrammarCompilers(lambda: LLTokenizer("byte"), "bytes") as compilers:
        yield compilers


def compiled(compilers: GrammarCompilers, kind: StructureKind, *texts: str) -> CompiledGrammar:
    return asyncio.run(compilers.compile(Structure(kind, texts)))


REFUSED: list[tuple[StructureKind, str, type[ServerError], str]] = [
    (REGEX, "(a", StructureInvalid, "unclosed group"),
    (REGEX, "a(?=b)", StructureInvalid, "look-around"),
    (REGEX, r"[^\s\S]", StructureInvalid, "matches it"),
    (SCHEMA, "[1", StructureInvalid, "EOF while parsing"),
    (SCHEMA, "7", StructureInvalid, "object schema"),
    (SCHEMA, schema(type="thing"), StructureInvalid, "thing"),
    (SCHEMA, schema(type="array", uniqueItems=True), StructureInvalid, "uniqueItems"),
    (SCHEMA, json.dumps({"not": {"type": "string"}}), StructureInvalid, "not"),
    (SCHEMA, json.dumps({"x-guidance": {"lenient": True}, "uniqueItems": True}), StructureInvalid, "uniqueItems"),
    (SCHEMA, json.dumps({"$ref": "http://example.com/x"}), StructureInvalid, "does not fetch"),
    (SCHEMA, schema(type="string", format="weird"), StructureInvalid, "format"),
    (SCHEMA, schema(allOf=[{"type": "string"}, {"type": "integer"}]), StructureInvalid, "Unsatisfiable"),
    (SCHEMA, '{"items":' * 400 + "{}" + "}" * 400, StructureTooCostly, "recursion limit"),
    (GRAMMAR, "start: nothing", StructureInvalid, "nothing"),
    (GRAMMAR, "start: " + "(" * 300 + '"a"' + ")" * 300, StructureInvalid, "nested"),
    (GRAMMAR, chain(3000), StructureTooCostly, "at most 1024"),
]


@pytest.mark.parametrize(("kind", "source", "error", "says"), REFUSED, ids=[case[1][:30] for case in REFUSED])
def test_refused_by_name(
    compilers: GrammarCompilers, kind: StructureKind, source: str, error: type[ServerError], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        compiled(compilers, kind, source)
    assert str(refused.value).startswith(f"{kind}: ")
    assert len(str(refused.value)) < 700


def test_a_bound_of_the_library_is_told_apart_from_a_mistake(
    monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers
) -> None:
    monkeypatch.setattr(grammars, "LIMITS", LLParserLimits(step_max_items=2, verbose_errors=False))
    with pytest.raises(StructureTooCostly, match=r"Too many items.*smaller or simpler"):
        compiled(compilers, GRAMMAR, 'start: a+\na: "x" | "y" | a a')


def test_the_deepest_grammar_that_is_taken_does_not_break_the_process(compilers: GrammarCompilers) -> None:
    matcher = compiled(compilers, GRAMMAR, chain(1022)).matcher()
    assert matcher.consume_token(ord("x"))


def test_the_same_structure_is_compiled_once(monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers) -> None:
    calls: list[str] = []
    original = grammars.compile_structure

    def counting(tokenizer: LLTokenizer, digest: str, structure: Structure) -> CompiledGrammar:
        calls.append(digest)
        return original(tokenizer, digest, structure)

    monkeypatch.setattr(grammars, "compile_structure", counting)

    async def ask() -> list[CompiledGrammar]:
        same = Structure(REGEX, ("a+",))
        at_once = await asyncio.gather(*(compilers.compile(same) for _ in range(5)))
        return [
            *at_once,
            await compilers.compile(same),
            await compilers.compile(Structure(GRAMMAR, ("start: /a+/",))),
        ]

    found = asyncio.run(ask())
    assert len({id(one) for one in found[:6]}) == 1
    assert found[6].digest != found[0].digest
    assert calls == [found[0].digest, found[6].digest]


def test_a_matcher_of_ones_own_moves_nobody_elses(compilers: GrammarCompilers) -> None:
    grammar = compiled(compilers, REGEX, "ab")
    first, second = grammar.matcher(), grammar.matcher()
    assert first.consume_token(ord("a"))
    assert not first.validate_tokens([ord("a")])
    assert second.validate_tokens([ord("a")]) == 1


def test_only_the_last_structures_are_kept(monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers) -> None:
    monkeypatch.setattr(grammars, "_CACHED", 2)

    async def ask() -> bool:
        first = await compilers.compile(Structure(REGEX, ("a",)))
        for other in ("b", "c"):
            await compilers.compile(Structure(REGEX, (other,)))
        return first is await compilers.compile(Structure(REGEX, ("a",)))

    assert not asyncio.run(ask())


def test_what_takes_too_long_is_refused_and_what_is_too_much_waits_elsewhere(
    monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers
) -> None:
    monkeypatch.setattr(grammars, "COMPILE_S", 0.0)
    monkeypatch.setattr(grammars, "_WAITING", 3)
    release = threading.Event()
    monkeypatch.setattr(grammars, "compile_structure", lambda tokenizer, digest, structure: release.wait(60))

    async def ask() -> list[object]:
        return await asyncio.gather(
            *(compilers.compile(Structure(REGEX, (text,))) for text in "abcd"), return_exceptions=True
        )

    found = asyncio.run(ask())
    release.set()
    assert [type(one) for one in found] == [StructureTooCostly] * 3 + [CompilersBusy]


def test_what_was_compiled_too_late_is_there_for_who_asks_again(
    monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers
) -> None:
    release, made, original = threading.Event(), list[str](), grammars.compile_structure

    def late(tokenizer: LLTokenizer, digest: str, structure: Structure) -> CompiledGrammar:
        release.wait(60)
        made.append(digest)
        return original(tokenizer, digest, structure)

    monkeypatch.setattr(grammars, "compile_structure", late)

    async def ask_twice() -> CompiledGrammar:
        monkeypatch.setattr(grammars, "COMPILE_S", 0.0)
        with pytest.raises(StructureTooCostly):
            await compilers.compile(Structure(REGEX, ("ab",)))
        under_way = list(compilers._pending.values())
        release.set()
        await asyncio.gather(*map(asyncio.wrap_future, under_way))
        # What a finished thread has told the loop comes before this.
        await asyncio.sleep(0)
        return await compilers.compile(Structure(REGEX, ("ab",)))

    assert asyncio.run(ask_twice()).digest == made[0]
    assert len(made) == 1


def test_a_failed_compilation_is_tried_again(monkeypatch: pytest.MonkeyPatch, compilers: GrammarCompilers) -> None:
    failures = iter([StructureInvalid("once")])
    original = grammars.compile_structure

    def failing(tokenizer: LLTokenizer, digest: str, structure: Structure) -> CompiledGrammar:
        for failure in failures:
            raise failure
        return original(tokenizer, digest, structure)

    monkeypatch.setattr(grammars, "compile_structure", failing)

    async def ask() -> CompiledGrammar:
        with pytest.raises(StructureInvalid, match="once"):
            await compilers.compile(Structure(REGEX, ("a",)))
        return await compilers.compile(Structure(REGEX, ("a",)))

    assert asyncio.run(ask()).matcher().validate_tokens([ord("a")]) == 1


def optional(properties: int) -> str:
    fields = {f"k{i}": {"type": "integer"} for i in range(properties)}
    return schema(type="object", properties=fields, additionalProperties=False)


def test_a_schema_of_a_hundred_optional_properties_can_be_followed(compilers: GrammarCompilers) -> None:
    matcher = compiled(compilers, SCHEMA, optional(100)).matcher()
    assert matcher.consume_tokens(list(b'{"k0":1,"k99":2}'))
    assert matcher.is_accepting()
