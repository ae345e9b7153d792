"""Writes `docs/hostile-files.md`, in `tests/support`: `python hostile_page.py ../../docs/hostile-files.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from hostile_files import CASES, DECLARED

_HEAD = """# Hostile files

What is sent to a registry is hostile until proven otherwise. These are the files that `tests/hostile` sends, row by
row: as a directory, and as a remote caller who declares and uploads whatever it likes. The worker that checks them is
watched: it starts, imports, unpickles, compiles and writes nothing, opens nothing but the files it was given, and
stays within 1.2 times the largest file and 200 MB. After each row the other versions and the base model are what they
were. `python tests/support/hostile_files.py DIR` writes the files.

| Row | What is sent | Answer |
|---|---|---|
"""
_TAIL = """
Patterns in `target_modules` are accepted because they are never run: the tensors of the file say what is adapted.
An initialisation that changes the base model (PiSSA, OLoRA, LoftQ, CorDA) is refused and not read as an ordinary one,
because the answers would be wrong; the message says how to convert the adapter. `base_model_name_or_path` is never
opened or fetched: what an adapter fits is decided by the digest of the base model and by shapes.

## Fuzzing

`tests/hostile/test_fuzz.py` changes good files a little (bits, numbers, tokens, lengths, pieces) and builds headers
and configurations from nothing. The answer is always a verdict of bounded size; what passes the gate is read by the
`safetensors` library with the same names, dtypes, shapes and bytes, and what passes as a configuration has the values
of a plain JSON reader. Without `SWITCHYARD_FUZZ_RUNS` there are 5,000 changed files of each kind, the same ones in
every run.

```console
$ SWITCHYARD_FUZZ_RUNS=200000 pytest tests/hostile/test_fuzz.py
```

## The worker's walls

Validation runs in a process of its own: 1 GiB of address space, 120 s of processor time, 300 s in all, 64 open files,
no file to write, no core dump, nothing of the environment, and no network where Linux lets a process leave it. That
needs either the right to make network name spaces or unprivileged user name spaces; `isolation.network_is_cut` tells
whether they are there. Without them the worker could still open a connection if it were taken over.
"""


def page() -> str:
    """The whole page."""
    rows = [(case.row, case.title, _answer(case.reason, accepted=case.is_accepted)) for case in CASES.values()]
    rows += [(row, title, _answer(reason, accepted=False)) for (row, title), (_, reason) in DECLARED.items()]
    rows.append((30, "bytes that are not those declared", _answer("DIGEST_MISMATCH", accepted=False)))
    ordered = sorted(rows, key=lambda row: row[0])
    return _HEAD + "".join(f"| {row} | {title} | {answer} |\n" for row, title, answer in ordered) + _TAIL


def _answer(reason: str, *, accepted: bool) -> str:
    if not accepted:
        return f"refused, `{reason}`"
    return f"accepted, warning `{reason}`" if reason else "accepted"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
