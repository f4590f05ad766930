"""Reads a configuration: strict YAML, and flags that override it.

Every key of the YAML file is a flag of the same name: `policy: {budget: 20%}` is `--policy.budget 20%`. A key or a flag
that does not exist is an error that names the nearest one; nothing is ever ignored.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import typing
from pathlib import Path

import jsonargparse
import yaml

from recsparse.config import Config, from_dict, leaf_types, validate
from recsparse.errors import UserError


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples."""


def build_parser(prog: str, examples: str = "") -> jsonargparse.ArgumentParser:
    """Parser whose flags are the keys of `Config`, plus `--config FILE`."""
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [--config FILE] [--KEY VALUE ...]",
        epilog=examples,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file; flags override what it says")
    parser.add_class_arguments(Config, sub_configs=False)
    return parser


def parse(parser: jsonargparse.ArgumentParser, argv: list[str]) -> Config:
    """Config from `argv`: defaults, then config files, then flags, wherever they stand on the line.

    Raises:
        UserError: unknown key or flag (the nearest is named), wrong type, value out of range, unreadable file.
    """
    files, flags = _split_config_files(argv)
    _check_flags(parser, flags)
    for file in files:
        check_yaml_keys(Path(file))
    try:
        namespace = parser.parse_args([f"--config={file}" for file in files] + flags)
    except jsonargparse.ArgumentError as error:
        raise UserError(_one_line(str(error))) from None
    config = from_dict(namespace.as_dict())
    validate(config)
    return config


def check_yaml_keys(file: Path) -> None:
    """Rejects a YAML file with an unknown or repeated key, naming file, line and the nearest key."""
    _check_node(file, compose(file), Config, "")


def compose(file: Path) -> yaml.Node:
    """The YAML file as nodes, which know their lines.

    Raises:
        UserError: unreadable, empty or not YAML.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"config file {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"config file {file} is not UTF-8 text") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {_one_line(str(error))}") from None
    if root is None:
        raise UserError(f"config file {file} is empty")
    return root


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean X?` where a known word is near, else where to find them all."""
    tail = word.rsplit(".", 1)[-1]
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    match = match or [name for name in known if name.rsplit(".", 1)[-1] == tail][:1]
    return f"; did you mean {match[0]}?" if match else "; `recsparse train --help` lists them all"


def _check_node(file: Path, node: yaml.Node, cls: type, prefix: str) -> None:
    if not isinstance(node, yaml.MappingNode):
        where = f"{file}:{node.start_mark.line + 1}"
        raise UserError(f"{where}: expected `key: value` lines{f' under {prefix[:-1]}' if prefix else ''}")
    types = typing.get_type_hints(cls)
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = str(key_node.value)
        where = f"{file}:{key_node.start_mark.line + 1}"
        if key not in types:
            leaves = list(leaf_types())
            hint = nearest(prefix + key, leaves if prefix else [*types, *leaves])
            raise UserError(f"{where}: unknown key {prefix + key}{hint}")
        if key in seen:
            raise UserError(f"{where}: key {prefix + key} is given twice")
        seen.add(key)
        empty = value_node.tag == "tag:yaml.org,2002:null"
        if empty and not dataclasses.is_dataclass(types[key]) and type(None) not in typing.get_args(types[key]):
            raise UserError(f"{where}: key {prefix + key} has no value")
        if dataclasses.is_dataclass(types[key]):
            _check_node(file, value_node, typing.cast(type, types[key]), f"{prefix}{key}.")


def _split_config_files(argv: list[str]) -> tuple[list[str], list[str]]:
    files: list[str] = []
    flags: list[str] = []
    tokens = iter(argv)
    for token in tokens:
        if token == "--config":
            value = next(tokens, None)
            if value is None:
                raise UserError("--config needs a file name")
            files.append(value)
        elif token.startswith("--config="):
            files.append(token.removeprefix("--config="))
        else:
            flags.append(token)
    return files, flags


def _check_flags(parser: jsonargparse.ArgumentParser, flags: list[str]) -> None:
    known = [option for action in parser._actions for option in action.option_strings]
    for token in flags:
        name = token.split("=", 1)[0]
        if name.startswith("--") and name not in known:
            leaves = [f"--{key}" for key in leaf_types()]
            extra = [option for option in known if option.startswith("--") and "." not in option]
            raise UserError(f"unknown option {name}{nearest(name, leaves + extra)}")


def _one_line(text: str) -> str:
    union = re.match(r"(.*?:)\s+Does not validate .*?(Expected a [^\n]*)\n.*Given value: (.*)$", text, flags=re.DOTALL)
    if union:
        text = f"{union[1]} {union[2]}. Got value: {union[3]}"
    text = (
        text.replace("Parser key ", "").replace("<class ", "").replace("'>", "'").replace("a typing.Literal", "one of ")
    )
    return " ".join(text.split())
