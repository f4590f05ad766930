from __future__ import annotations

from pathlib import Path

import pytest

from recsparse import config as configuration
from recsparse import config_reader, policies
from recsparse.config import Config
from recsparse.errors import UserError
from recsparse.policies.dsl import MODES


def parse(*argv: str) -> Config:
    return config_reader.parse(config_reader.build_parser("recsparse train"), list(argv))


def test_defaults_are_valid_and_equal_to_an_empty_command_line() -> None:
    assert parse() == Config()


def test_flags_override_the_file_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optim: {lr: 1e-2, l2: 0.5}\npolicy: {budget: 20%, dsl: {mode: faithful}}\n")
    before, after = parse("--optim.lr", "0.3", "--config", str(file)), parse(f"--config={file}", "--optim.lr=0.3")
    assert before == after
    assert (before.optim.lr, before.optim.l2, before.policy.budget, before.policy.dsl.mode) == (
        0.3,
        0.5,
        "20%",
        "faithful",
    )


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    wanted = policies.resolve(parse("--policy.budget", "1.5MB", "--optim.betas", "[0.8, 0.9]", "--train.seed", "7"))
    file = tmp_path / "config.yaml"
    file.write_text(configuration.to_yaml(wanted))
    assert parse("--config", str(file)) == wanted
    assert configuration.from_dict(configuration.to_dict(wanted)) == wanted


def test_resolving_fills_every_option_of_the_mode_and_keeps_given_ones() -> None:
    filled = policies.resolve(parse("--policy.dsl.mode", "faithful", "--policy.dsl.ratio", "0.25")).policy.dsl
    assert filled.start == "bernoulli"
    assert filled.ratio == 0.25
    assert filled.ratio_min == 0.005
    assert None not in [getattr(filled, key) for key in MODES["faithful"]]


@pytest.mark.parametrize(
    ("text", "line", "near"),
    [
        ("optim:\n  lrr: 1\n", 2, "optim.lr?"),
        ("optim: {lr: 1}\npolcy:\n  budget: 20%\n", 2, "policy"),
        ("policy:\n  dsl:\n    mode: fresh\n    evry: 1 epoch\n", 4, "policy.dsl.every?"),
        ("budget: 20%\n", 1, "policy.budget?"),
    ],
)
def test_an_unknown_key_names_file_line_and_the_nearest_key(tmp_path: Path, text: str, line: int, near: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse("--config", str(file))
    assert f"bad.yaml:{line}: unknown key" in str(error.value)
    assert near in str(error.value)


def test_an_unknown_flag_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"unknown option --policy\.budgt; did you mean --policy\.budget\?"):
        parse("--policy.budgt", "20%")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 1, lr: 2}\n", "bad.yaml:1: key optim.lr is given twice"),
        ("optim: [3\n", "not valid YAML"),
        ("- 1\n", "bad.yaml:1: expected `key: value` lines"),
        ("optim: 3\n", "bad.yaml:1: expected `key: value` lines under optim"),
        ("", "is empty"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse("--config", str(file))
    assert message in str(error.value)


def test_a_missing_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file"):
        parse("--config", str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("optim.lr", "0", "1e-9"),
        ("optim.betas", "[0.9, 1.0]", "[0.0, 0.999]"),
        ("model.dim", "257", "256"),
        ("model.dim", "0", "1"),
        ("data.valid_fraction", "1.0", "0.99"),
        ("train.epochs", "0", "1"),
        ("train.patience", "-1", "0"),
        ("train.seed", "-1", "0"),
        ("policy.density", "1.01", "1.0"),
        ("policy.density", "0", "0.001"),
        ("policy.dsl.ratio", "1.5", "1.0"),
        ("policy.dsl.stop_at", "-0.1", "0"),
    ],
)
def test_values_are_checked_at_their_bounds(key: str, bad: str, good: str) -> None:
    parse(f"--{key}", good)
    with pytest.raises(UserError, match=f"^{key} is "):
        parse(f"--{key}={bad}")


@pytest.mark.parametrize("flag", ["--optim.lr=fast", "--policy.kind=csr", "--train.epochs=2.5", "--optim.betas=3"])
def test_a_wrong_type_is_one_line_that_names_the_key(flag: str) -> None:
    with pytest.raises(UserError) as error:
        parse(flag)
    assert "\n" not in str(error.value)
    assert flag[2:].split("=")[0] in str(error.value)


def test_budget_and_density_exclude_each_other() -> None:
    with pytest.raises(UserError, match="both given"):
        parse("--policy.budget=20%", "--policy.density=0.2")


def test_a_run_name_is_no_path() -> None:
    with pytest.raises(UserError, match="plain folder name"):
        parse("--run.name=../elsewhere")
