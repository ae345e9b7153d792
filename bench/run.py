"""`make bench`: runs every benchmark here and writes its table under bench/results/."""

from __future__ import annotations

from mixed_decode import main as mixed_decode

if __name__ == "__main__":
    mixed_decode()
