"""Search spaces: what is read from a file, and which mistakes are named before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsparse.errors import UserError
from recsparse.space import Choice, Range, check, for_policy, load

GOOD = """
# numbers as the configuration reads them
optim.lr: {low: 1e-4, high: 1e-2, log: true}
optim.l2: {low: 0, high: 0.5, step: 0.1}
train.batch_size: {low: 64, high: 256, step: 64}
train.sampler: {choices: [users, interactions]}
optim.betas:
  choices:
    - [0.9, 0.999]
    - [0.5, 0.99]
policy.dsl.ratio: {choices: [null, 1e-1]}
policy.lth.one_shot: {choices: [true, false]}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(text)
    return file


def test_a_space_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD)
    space = load(file)
    assert space == {
        "optim.lr": Range(1e-4, 1e-2, False, None, True),
        "optim.l2": Range(0.0, 0.5, False, 0.1),
        "train.batch_size": Range(64, 256, True, 64),
        "train.sampler": Choice(("users", "interactions")),
        "optim.betas": Choice(("[0.9, 0.999]", "[0.5, 0.99]")),
        "policy.dsl.ratio": Choice(("null", "0.1")),
        "policy.lth.one_shot": Choice(("true", "false")),
    }
    check(file, space, ["--data.path=demo", "--policy.name=dsl", "--policy.budget=20%"])


def test_options_of_a_policy_are_for_that_policy(tmp_path: Path) -> None:
    space = load(written(tmp_path, GOOD))
    assert "policy.dsl.ratio" in for_policy(space, "dsl")
    assert "policy.lth.one_shot" in for_policy(space, "lth")
    assert set(for_policy(space, "dense")) == set(space) - {"policy.dsl.ratio", "policy.lth.one_shot"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[a]", r"space\.yaml:1: expected lines as"),
        ("optim.lr: [1", "not valid YAML"),
        ("optim.lrr: {low: 1, high: 2}", r"space\.yaml:1: unknown key optim\.lrr; did you mean optim\.lr\?"),
        ("optim: {lr: {low: 1, high: 2}}", r":1: unknown key optim; "),
        ("optim.lr: {low: 1, high: 2}\noptim.lr: {low: 1, high: 2}", r":2: key optim\.lr is given twice"),
        ("policy.budget: {choices: [10%]}", r":1: policy\.budget is the same for all trials"),
        ("data.protocol: {choices: [paper]}", r":1: data\.protocol is the same for all trials"),
        ("optim.lr: 0.1", r"optim\.lr: expected \{low, high\} or"),
        ("optim.lr: {low: 1, hihg: 2}", r"unknown word hihg; did you mean high\?"),
        ("optim.lr: {low: 1, low: 2}", "low is given twice"),
        ("optim.lr: {low: 1}", "high is missing"),
        ("optim.lr: {low: {a: 1}, high: 2}", "expected a value or a list"),
        ("optim.lr: {low: .nan, high: 2}", "low is NaN; expected a number"),
        ("optim.lr: {low: !!python/name:os.system x, high: 2}", "is not plain YAML"),
        ("optim.lr: {low: 0.2, high: 0.1}", r"low 0\.2 is not below high 0\.1"),
        ("optim.lr: {low: 0, high: 1, log: true}", "log needs low above 0"),
        ("optim.lr: {low: 1, high: 2, step: 1, log: true}", "log needs low above 0 and no step"),
        ("optim.lr: {low: 1, high: 2, log: 1}", "log is 1; expected true or false"),
        ("optim.lr: {low: 0.1, high: 0.5, step: 0.3}", r"step is 0\.3; expected a part of high - low"),
        ("train.batch_size: {low: 1.5, high: 4}", r"low is 1\.5; expected a whole number"),
        ("train.batch_size: {low: one, high: 4}", "low is one; expected a whole number"),
        ("train.batch_size: {low: true, high: 4}", "low is true; expected a whole number"),
        ("train.sampler: {low: 1, high: 2}", r"a range is for numbers; expected choices: \[\.\.\] of users, interact"),
        ("train.sampler: {choices: [users, items]}", "choice items is of a wrong type; expected users, interactions"),
        ("train.batch_size: {choices: [64, 1e2]}", r"choice 100\.0 is of a wrong type; expected whole numbers"),
        ("train.batch_size: {choices: [64, 2026-11-21]}", "choice .*2026-11-21.* is of a wrong type"),
        ("policy.lth.one_shot: {choices: ['yes']}", "choice yes is of a wrong type; expected true and false"),
        ("optim.betas: {choices: [[0.9]]}", "expected lists of 2 numbers"),
        ("train.batch_size: {choices: []}", "expected a list"),
        ("train.batch_size: {choices: [64, 64]}", "a choice is given twice"),
        ("train.batch_size: {choices: [64], low: 1}", "choices stand alone, without low"),
    ],
)
def test_mistakes_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr: {low: 0.1, high: 20}", r"space\.yaml: optim\.lr is 20\.0; it must be above 0, at most 10"),
        ("train.batch_size: {choices: [8, 16, 0]}", r"train\.batch_size is 0; it must be 1 or above|from 1 to"),
    ],
)
def test_values_out_of_range_are_found_at_once(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UserError, match=message):
        check(file, load(file), ["--data.path=demo", "--policy.name=dense"])


def test_the_example_of_the_docs_is_a_space(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "compare.md"
    file = written(tmp_path, page.read_text().split("```yaml\n")[1].split("```")[0])
    space = load(file)
    assert len(space) == 5
    for policy in ("dense", "dsl", "lth"):
        own = for_policy(space, policy)
        assert len(own) == (3 if policy == "dense" else 4)
        size = [] if policy == "dense" else ["--policy.budget=10%"]
        check(file, own, ["--data.path=demo", f"--policy.name={policy}", *size])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
