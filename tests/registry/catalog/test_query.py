"""The query language: what parses into which terms, and that every mistake is told with what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchyard.registry.catalog.query import ANYTHING, Field, Operator, Pattern, Term, VersionQuery
from switchyard.registry.errors import ArgumentInvalid

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("tag:task=ner", Term(Field.TAG, "task", (Pattern("ner"),))),
        ("tag:task", Term(Field.TAG, "task", (ANYTHING,))),
        ("tag:task=", Term(Field.TAG, "task", (Pattern(""),))),
        ("tag:task=*r", Term(Field.TAG, "task", (Pattern("r", open_start=True),))),
        ('tag:task="a \\"b\\" \\\\ *"', Term(Field.TAG, "task", (Pattern('a "b" \\ *'),))),
        ("tag:task=a=b", Term(Field.TAG, "task", (Pattern("a=b"),))),
        ("metric:f1>=0.9", Term(Field.METRIC, "f1", (), Operator.AT_LEAST, 0.9)),
        ("metric:f1<-1e-3", Term(Field.METRIC, "f1", (), Operator.LESS, -1e-3)),
        ('metric:"exact match">.5', Term(Field.METRIC, "exact match", (), Operator.MORE, 0.5)),
        ('metric:"a>b"=1', Term(Field.METRIC, "a>b", (), Operator.EQUAL, 1.0)),
        ("rank<=16", Term(Field.RANK, operator=Operator.AT_MOST, number=16)),
        ("rank=8", Term(Field.RANK, operator=Operator.EQUAL, number=8)),
        ("alias:prod", Term(Field.ALIAS, patterns=(Pattern("prod"),))),
        ("state:ready,Yanked", Term(Field.STATE, patterns=(Pattern("READY"), Pattern("YANKED")))),
        (f"base:{DIGEST}", Term(Field.BASE, patterns=(Pattern(DIGEST),))),
        (f"dataset:{DIGEST}", Term(Field.DATASET, patterns=(Pattern(DIGEST),))),
        ("publisher:ann*", Term(Field.PUBLISHER, patterns=(Pattern("ann", open_end=True),))),
        ('publisher:"ann smith"', Term(Field.PUBLISHER, patterns=(Pattern("ann smith"),))),
        ("feature:rslora", Term(Field.FEATURE, patterns=(Pattern("rslora"),))),
        ("target:q_proj", Term(Field.TARGET, patterns=(Pattern("q_proj"),))),
        ("ner*", Term(Field.NAME, patterns=(ANYTHING, Pattern("ner", open_end=True)))),
        ("*ner*", Term(Field.NAME, patterns=(ANYTHING, Pattern("ner", True, True)))),
        ("*", Term(Field.NAME, patterns=(ANYTHING, ANYTHING))),
        ("team/ner", Term(Field.NAME, patterns=(Pattern("team"), Pattern("ner")))),
        ("name:ner", Term(Field.NAME, patterns=(ANYTHING, Pattern("ner")))),
        ("namespace:team", Term(Field.NAMESPACE, patterns=(Pattern("team"),))),
    ],
)
def test_terms(text: str, term: Term) -> None:
    assert VersionQuery.parse(text) == VersionQuery((term,))
    assert VersionQuery.parse(f"  {text}\n{text} ").terms == (term, term)


def test_the_empty_query_asks_for_everything() -> None:
    assert VersionQuery.parse("  ") == VersionQuery()
    assert not VersionQuery().names_states
    assert VersionQuery.parse("ner state:ready").names_states


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour:red", r"'colour:red': unknown field 'colour'; expected one of tag:…, metric:…"),
        ("tag:", "the value is missing"),
        ("tag:Bad=x", "'Bad' is no key of a tag; write tag:key=value"),
        ("metric:f1", "write metric:name>=number"),
        ("metric:f1>=high", "'high' is no number"),
        ("metric:f1>=nan", "'nan' is no number"),
        ("metric:f1>=1e999", "is no number"),
        ("metric:f1=>1", "'>1' is no number"),
        ("rank>=", "is no number"),
        ("rank<=٣", "is no number"),
        ("state:golden", "'golden' is no state; expected one or more of ready, deprecated"),
        ("base:tiny", "expected sha256: and 64"),
        ("alias:a*b", r"'\*' may stand first or last only"),
        ("a*b*c", r"'\*' may stand first or last|is neither a pattern"),
        ("NER", "is neither a pattern for names"),
        ("%", "is neither a pattern for names"),
        ('publisher:"ann', "a quote is not closed near"),
        ('publisher:"ann"x', "quotes around the whole value"),
        ("feature:'x'", "expected a word"),
        ("x " * 40, "40 terms are given; expected at most 32"),
        ("x" * 5000, "5000 characters"),
    ],
)
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(ArgumentInvalid, match=told):
        VersionQuery.parse(text)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        VersionQuery.parse("colour:red ner rank<=x state:?")
    assert str(caught.value).count(";") >= 2
    for part in ("'colour:red'", "'rank<=x'", "'state:?'"):
        assert part in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    told = ""
    try:
        VersionQuery.parse(text)
    except ArgumentInvalid as error:
        told = str(error)
    assert told.isprintable()


@given(st.text(max_size=30).filter(str.isprintable))
def test_any_value_can_be_quoted(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert VersionQuery.parse(f'tag:k="{escaped}"').terms[0].patterns == (Pattern(value),)
