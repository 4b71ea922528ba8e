"""What fuzzing once found stays found: the whole corpus through the same functions, without the fuzzer."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

from tests.fuzz.__main__ import TARGETS
from tests.fuzz.seeds import seeds

CORPUS = Path(__file__).parent / "corpus"
INPUTS = [path for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("path", INPUTS, ids=[f"{path.parent.name}-{path.name}" for path in INPUTS])
def test_an_input_worth_keeping_finds_no_defect(path: Path) -> None:
    importlib.import_module(f"tests.fuzz.fuzz_{path.parent.name}").TestOneInput(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_a_little_damaged_find_no_defect(target: str) -> None:
    """A few hundred changed copies of the corpus: what a fuzzer does first, always the same."""
    chance = random.Random(target)
    run = importlib.import_module(f"tests.fuzz.fuzz_{target}").TestOneInput
    corpus = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for _ in range(300):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(3):
                case 0:
                    data[at:at] = chance.randbytes(chance.randrange(1, 5))
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case _:
                    data[at : at + 1] = chance.randbytes(1)
        run(bytes(data))


def test_every_target_has_a_corpus_and_its_seeds_are_the_scripts() -> None:
    written = {(target, name): content for target, name, content in seeds()}
    assert {target for target, _ in written} == set(TARGETS)
    for (target, name), content in written.items():
        assert (CORPUS / target / name).read_bytes() == content, "write the corpus anew: python -m tests.fuzz.seeds"
    assert all(path.stat().st_size <= 20_000 for path in INPUTS)
