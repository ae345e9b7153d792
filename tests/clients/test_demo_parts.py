from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from switchyard.clients.answers import Answer, FinishReason, ServedAdapter, ServedBy, Timing, Usage
from switchyard.clients.asking import Asking
from switchyard.clients.demo import material, report, scenes, scoring, scrape
from switchyard.clients.demo.children import Children, wait_for_facts, wait_until_all_end
from switchyard.clients.demo.training import RunWatch
from switchyard.clients.errors import DemoFailed


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    # Reference values: R's binom::binom.wilson.
    [(0, 100, 0.0, 0.0370), (1996, 2000, 0.9949, 0.9992), (50, 100, 0.4038, 0.5962), (500, 500, 0.9924, 1.0)],
)
def test_wilson_interval(right: int, asked: int, low: float, high: float) -> None:
    assert scoring.wilson(right, asked) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("answer", "completion", "right"),
    [
        ('{"b": 2, "a": "臺"}', '{"a": "臺", "b": 2}', True),
        ('{"a": "臺", "b": 2} and more', '{"a": "臺", "b": 2}', False),
        ('{"a": "台", "b": 2}', '{"a": "臺", "b": 2}', False),
        ("[1]", '{"a": 1}', False),
        (" 斗六\n", "斗六", True),
        ("斗六、", "斗六", False),
        ("307", "307", True),
        ("307.0", "307", False),
    ],
)
def test_what_counts_as_right(answer: str, completion: str, right: bool) -> None:
    assert scoring.is_right(answer, completion) is right


def test_a_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', encoding="utf-8")
    with pytest.raises(DemoFailed, match="line 2"):
        scoring.read_rows(path)


def test_the_longest_answer_covers_every_row_and_its_end() -> None:
    assert scoring.longest_answer_tokens([scoring.Row("p", "ab"), scoring.Row("p", "臺臺")]) == 7


def test_a_training_log_is_followed_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    with Progress(console=Console(file=sys.stderr, force_terminal=False)) as bars:
        watch = RunWatch(log, bars.add_task("run", total=None, note=""))
        watch.update(bars)
        assert watch.last_loss is None
        first = json.dumps({"kind": "train", "step": 1, "total_steps": 4, "loss": 2.0, "tokens_per_s": 10})
        log.write_text(f'{first}\n{{"kind": "train", "st', encoding="utf-8")
        watch.update(bars)
        assert (bars.tasks[0].completed, bars.tasks[0].total, watch.last_loss) == (1, 4, 2.0)
        rest = 'ep": 2, "loss": 1.0, "tokens": 50, "elapsed_s": 2.0}\n{"kind": "dev", "step": 2, "loss": 9.0}\n'
        with log.open("a", encoding="utf-8") as stream:
            stream.write(rest)
        watch.update(bars)
        assert (bars.tasks[0].completed, watch.last_loss) == (2, 1.0)
        assert bars.tasks[0].fields["note"] == "loss 1.000  25 tok/s"


def test_the_exposition_format_is_read() -> None:
    samples = scrape.parse(
        "# HELP a b\n# TYPE a counter\n"
        'a_total{x="1",y="q\\"{}"} 3\na_total{x="2"} 4.5 1700000000\nb 1e3\nvllm:info{z=""} 1\nbroken\n'
    )
    assert [one.name for one in samples] == ["a_total", "a_total", "b", "vllm:info"]
    assert samples[0].labels == {"x": "1", "y": 'q\\"{}'}
    assert scrape.total(samples, "a_total") == 7.5
    assert scrape.total(samples, "a_total", x="2") == 4.5
    assert scrape.total(samples, "nothing") == 0


def test_no_metrics_is_said() -> None:
    with pytest.raises(DemoFailed, match=r"127\.0\.0\.1:1"):
        scrape.scrape("127.0.0.1:1")


def test_a_directory_is_claimed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert material.claim_directory(None) == tmp_path / "switchyard-demo"
    assert material.claim_directory(None) == tmp_path / "switchyard-demo-2"
    assert material.claim_directory(tmp_path / "given" / "deep") == tmp_path / "given" / "deep"
    with pytest.raises(DemoFailed, match="not empty"):
        material.claim_directory(tmp_path / "given")


@pytest.mark.parametrize(
    "text", ["name: a\nbase:\n  path: ../b\n", "name: a\nbase: {name: x, path: ../b}\n", 'base:\n  path: "../b"\n']
)
def test_the_base_is_the_recipes_unless_given(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "task" / "recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text(text, encoding="utf-8")
    with Children(tmp_path) as children:
        assert material.base_directory(None, recipe, children) == tmp_path / "b"
        assert material.base_directory(str(tmp_path / "task"), recipe, children) == tmp_path / "task"
        with pytest.raises(DemoFailed, match="no repository"):
            material.base_directory("nothing-here", recipe, children)


def test_a_base_on_the_hub_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with Children(tmp_path) as children:
        assert material.base_directory("owner/name", tmp_path / "recipe.yaml", children) == snapshot
        with pytest.raises(DemoFailed, match="download ended with status"):
            material.base_directory("owner/other", tmp_path / "recipe.yaml", children)


def test_a_recipe_without_a_base_is_said(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: a\nbase: {hub: a/b}\ntrain: {}\n", encoding="utf-8")
    with Children(tmp_path) as children, pytest.raises(DemoFailed, match="--base"):
        material.base_directory(None, recipe, children)


def test_a_recipe_must_say_what_the_demo_needs(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: a\nbase: {path: b}\n", encoding="utf-8")
    script.write_text(f"print({str(recipe)!r})", encoding="utf-8")
    with Children(tmp_path, [sys.executable, str(script)]) as children:
        with pytest.raises(DemoFailed, match=r"data\.test"):
            material.write_tasks(children, tmp_path, material.Scale())
        script.write_text("", encoding="utf-8")
        with pytest.raises(DemoFailed, match="no recipe"):
            material.write_tasks(children, tmp_path, material.Scale())


@pytest.mark.parametrize(
    ("scale", "steps", "rate", "rows"),
    [
        (material.Scale(), "600", "4.0e-3", 3),
        (material.Scale(steps=7, rows=2), "7", "4.0e-3", 2),
        (material.Scale(base="owner/name"), "100", "0.0002", 3),
        (material.Scale(base="owner/name", steps=9), "9", "0.0002", 3),
    ],
)
@pytest.mark.parametrize(
    "train",
    ["train:\n  max_steps: 600\n  learning_rate: 4.0e-3\n", "train: {max_steps: 600, learning_rate: 4.0e-3}\n"],
)
def test_recipes_are_tuned_to_the_scale(
    tmp_path: Path, scale: material.Scale, steps: str, rate: str, rows: int, train: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: a\nbase: {{path: b}}\ndata: {{test: t.jsonl}}\n{train}", encoding="utf-8")
    (tmp_path / "t.jsonl").write_text('{"prompt": "p", "completion": "c"}\n' * 3, encoding="utf-8")
    script = tmp_path / "program.py"
    script.write_text(f"print({str(recipe)!r})", encoding="utf-8")
    with Children(tmp_path, [sys.executable, str(script)]) as children:
        (task,) = material.write_tasks(children, tmp_path, scale)
    assert (task.name, len(task.rows)) == ("a", rows)
    text = recipe.read_text(encoding="utf-8")
    expected = train.replace("600", steps).replace("4.0e-3", rate)
    assert text.endswith(expected)


def test_a_weakened_copy_halves_alpha_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "adapter"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"lora_alpha": 64, "r": 32}', encoding="utf-8")
    (source / "adapter_model.safetensors").write_bytes(b"weights")
    copy = material.weakened_copy(source, tmp_path / "weak")
    assert json.loads((copy / "adapter_config.json").read_text(encoding="utf-8")) == {"lora_alpha": 32, "r": 32}
    assert (copy / "adapter_model.safetensors").read_bytes() == b"weights"


def test_a_failing_child_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    script = "import sys; print('out'); sys.stderr.write('the reason\\n'); sys.exit(3)"
    with Children(tmp_path) as children:
        child = children.start_program("worker", [sys.executable, "-c", script])
        with pytest.raises(DemoFailed, match="the reason") as caught:
            wait_until_all_end([child], lambda: None)
    assert "status 3" in str(caught.value)


def test_children_are_stopped_however_the_block_ends(tmp_path: Path) -> None:
    script = "import signal; signal.pause()"
    children = Children(tmp_path)
    with pytest.raises(ZeroDivisionError), children:  # noqa: PT012 - the block must end by an error
        child = children.start_program("sleeper", [sys.executable, "-c", script])
        raise ZeroDivisionError
    assert child.process.poll() is not None


def test_a_service_that_ends_early_or_says_nonsense_is_not_ready(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with Children(tmp_path) as children:
        child = children.start_program("service", [sys.executable, "-c", "pass"])
        child.process.wait()
        with pytest.raises(DemoFailed, match="ended before"):
            wait_for_facts(child, ready, 5.0)
        ready.write_text("[]", encoding="utf-8")
        with pytest.raises(DemoFailed, match="list"):
            wait_for_facts(child, ready, 5.0)


def answer(text: str, digest: str = "", recipe: str = "") -> Answer:
    adapters = (ServedAdapter("demo", "a", 1, digest, "prod", 1, 1.0),) if digest else ()
    return Answer(
        text=text,
        token_ids=tuple(text.encode()),
        finish_reason=FinishReason.STOP,
        matched_stop="",
        served_by=ServedBy(adapters, "sha256:" + "b" * 64, "nf4", recipe),
        usage=Usage(3, len(text)),
        timing=Timing(0, 0, 0.01, 0.1),
        request_id="r",
        seed=0,
    )


def batch_line(found: Answer, *, wanted: str, same: bool = True) -> scenes.BatchLine:
    target = scenes.Target("t", Asking(), wanted)
    return scenes.BatchLine(target, scoring.Row("地址:臺北市", "x"), found, same)


def failed(one: report.Report) -> list[str]:
    return [check.name for check in one.checks() if not check.passed]


def test_checks_fail_when_what_they_check_fails() -> None:
    good = scenes.MixedBatch((batch_line(answer("x", "sha256:1"), wanted="sha256:1"),), 3)
    assert failed(report.Report(batch=good)) == []
    fell_back = scenes.MixedBatch((batch_line(answer("x"), wanted="sha256:1"),), 3)
    assert failed(report.Report(batch=fell_back)) == ["every answer came from the version that was asked"]
    other = scenes.MixedBatch((batch_line(answer("x", "sha256:2"), wanted=""),), 3)
    assert failed(report.Report(batch=other)) == ["every answer came from the version that was asked"]
    unequal = scenes.MixedBatch((batch_line(answer("x"), wanted="", same=False),), 3)
    assert failed(report.Report(batch=unequal)) == ["tokens in the batch equal tokens alone"]
    alone = scenes.MixedBatch((batch_line(answer("x"), wanted=""),), 1)
    assert failed(report.Report(batch=alone)) == ["targets shared one batch"]


def test_a_composition_must_be_one_and_give_the_same_tokens() -> None:
    whole = answer("abc", "sha256:1")
    for composed, equal in (
        (answer("abc", "sha256:1", "sha256:r"), True),
        (answer("abd", "sha256:1", "sha256:r"), False),
        (answer("abc", "sha256:1"), False),
    ):
        assert scenes.ComposedScene(composed, whole).equal is equal
        checks = report.Report(composed=scenes.ComposedScene(composed, whole)).checks()
        assert [check.passed for check in checks] == [equal]


@pytest.mark.parametrize("width", [80, 120])
def test_the_batch_fits_the_terminal(width: int) -> None:
    console = Console(width=width, record=True, file=sys.stderr)
    line = batch_line(answer('{"city": "臺北市", "town": "大安區", "road": "和平東路二段"}' * 2), wanted="")
    report.print_batch(scenes.MixedBatch((line, line), 2), console)
    from rich.cells import cell_len

    lines = console.export_text().splitlines()
    assert len(lines) == 4
    assert all(cell_len(one.rstrip()) <= width for one in lines)
    assert all("…" in one for one in lines[2:])
