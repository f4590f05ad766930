"""Search spaces: a strict YAML file that gives keys of `recsparse train` ranges or choices.

    optim.lr: {low: 1e-4, high: 1e-2, log: true}
    train.batch_size: {choices: [1024, 4096]}
    policy.dsl.rounds: {low: 2, high: 10, step: 2}

What is wrong in it is said before anything is trained. This module knows nothing of who searches.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from recsparse import config as configuration
from recsparse import config_reader, policies
from recsparse.errors import UserError

FIELDS = ("low", "high", "step", "log", "choices")
# What the command line says, or what would make trials incomparable.
FIXED = ("data.", "run.", "model.name", "policy.name", "policy.budget", "policy.density", "policy.ticket", "train.seed")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    Attributes:
        whole: whether they are whole numbers.
        step: distance of two numbers; None: any number (any whole one).
        log: whether every order of magnitude is as likely.
    """

    low: float
    high: float
    whole: bool
    step: float | None = None
    log: bool = False

    def corner(self, number: int) -> str:
        """An end of the range, as the value of a flag."""
        return text_of(self.high if number % 2 else self.low)


@dataclass(frozen=True)
class Choice:
    """Values to choose from, as flags give them."""

    texts: tuple[str, ...]

    def corner(self, number: int) -> str:
        return self.texts[number % len(self.texts)]


Space = Mapping[str, Range | Choice]


def text_of(value: Any) -> str:
    """A value as a flag gives it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def load(file: Path) -> Space:
    """The space in `file`.

    Raises:
        UserError: names file, line and what is wrong: an unknown or repeated key (and the nearest one), a value of a
            wrong type, an empty range.
    """
    root = config_reader.compose(file)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}:{root.start_mark.line + 1}: expected lines as `optim.lr: {{low: 1e-4, high: 1e-2}}`")
    known = configuration.leaf_types()
    space: dict[str, Range | Choice] = {}
    for key_node, node in root.value:
        key, where = str(key_node.value), f"{file}:{key_node.start_mark.line + 1}"
        if key not in known:
            raise UserError(f"{where}: unknown key {key}{config_reader.nearest(key, list(known))}")
        if key in space:
            raise UserError(f"{where}: key {key} is given twice")
        if key.startswith(FIXED):
            raise UserError(f"{where}: {key} is the same for all trials; give it as a flag")
        space[key] = _dimension(f"{where}: {key}", node, known[key])
    return space


def for_policy(space: Space, name: str) -> Space:
    """The keys that policy `name` has: without the options of other policies."""
    options = {key: key.split(".")[1] for key in space if key.count(".") == 2 and key.startswith("policy.")}
    return {
        key: value
        for key, value in space.items()
        if key not in options or name == options[key] or name.startswith(f"{options[key]}_")
    }


def check(file: Path, space: Space, flags: list[str]) -> None:
    """Parses the ends of all ranges and all choices as `recsparse train` would, with `flags`, which are of one policy.

    Raises:
        UserError: a value of a wrong type or out of its range.
    """
    parser = config_reader.build_parser("recsparse sweep")
    sizes = [len(each.texts) for each in space.values() if isinstance(each, Choice)]
    for number in range(max([2, *sizes])):
        corner = [f"--{key}={each.corner(number)}" for key, each in space.items()]
        try:
            policies.resolve(config_reader.parse(parser, [*flags, *corner]))
        except UserError as error:
            raise UserError(f"{file}: {error}") from None


def _dimension(where: str, node: yaml.Node, kind: Any) -> Range | Choice:
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{where}: expected {{low, high}} or {{choices: [..]}}")
    given: dict[str, Any] = {}
    for key_node, value_node in node.value:
        name = str(key_node.value)
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(FIELDS)}"
            raise UserError(f"{where}: unknown word {name}; {hint}")
        if name in given:
            raise UserError(f"{where}: {name} is given twice")
        given[name] = _value(where, value_node)
    # `Literal[..] | None` is a typing.Union, `int | None` is not.
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    if "choices" in given:
        if len(given) > 1:
            raise UserError(
                f"{where}: choices stand alone, without {', '.join(name for name in given if name != 'choices')}"
            )
        return _choice(where, given["choices"], kinds)
    return _range(where, given, kinds)


def _choice(where: str, values: Any, kinds: tuple[Any, ...]) -> Choice:
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: choices are {text_of(values)}; expected a list as [a, b]")
    texts = [text_of(value) for value in values]
    for value, text in zip(values, texts, strict=True):
        if not any(_fits(value, kind) for kind in kinds):
            raise UserError(f"{where}: choice {text} is of a wrong type; expected {_described(kinds)}")
    if len(set(texts)) < len(texts):
        raise UserError(f"{where}: a choice is given twice")
    return Choice(tuple(texts))


def _range(where: str, given: dict[str, Any], kinds: tuple[Any, ...]) -> Range:
    if not {int, float} & set(kinds):
        raise UserError(f"{where}: a range is for numbers; expected choices: [..] of {_described(kinds)}")
    whole = float not in kinds
    for name in ("low", "high"):
        if name not in given:
            raise UserError(f"{where}: {name} is missing")
    for name in ("low", "high", "step"):
        if name in given and not _fits(given[name], int if whole else float):
            raise UserError(
                f"{where}: {name} is {text_of(given[name])}; expected {'a whole number' if whole else 'a number'}"
            )
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}: log is {text_of(log)}; expected true or false")
    if not low < high:
        raise UserError(f"{where}: low {low} is not below high {high}")
    if log and (step is not None or low <= 0):
        raise UserError(f"{where}: log needs low above 0 and no step")
    if step is not None and (step <= 0 or (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))):
        raise UserError(f"{where}: step is {step}; expected a part of high - low that goes into it without a rest")
    if not whole:
        low, high = float(low), float(high)
    return Range(low, high, whole, step, log)


def _value(where: str, node: yaml.Node) -> Any:
    """Plain value of a node; unlike YAML 1.1, and like the configuration, it reads 1e-3 as a number."""
    if isinstance(node, yaml.SequenceNode):
        return [_value(where, each) for each in node.value]
    if isinstance(node, yaml.ScalarNode):
        if node.style is None and node.tag.endswith(":str") and _NUMBER.fullmatch(node.value):
            return float(node.value)
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):
            raise UserError(f"{where}: {node.value!r} is not plain YAML") from None
    raise UserError(f"{where}: expected a value or a list")


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        return isinstance(value, list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _described(kinds: tuple[Any, ...]) -> str:
    words = {int: "whole numbers", float: "numbers", str: "texts", bool: "true and false", type(None): "null"}
    found = []
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            found += [str(each) for each in typing.get_args(kind)]
        elif typing.get_origin(kind) is tuple:
            found.append(f"lists of {len(typing.get_args(kind))} numbers")
        else:
            found.append(words[kind])
    return ", ".join(found)
