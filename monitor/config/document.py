"""One YAML document → plain data, with the line of every key, and with `${env:NAME}` replaced.

The rules are those of YAML 1.2: only true and false are booleans, so that class names such as no, yes and on stay
text, and times stay text. Nothing is constructed from tags. Keys are always text. Aliases work; a document that
unfolds to more than MAX_NODES values is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from monitor.config.errors import ConfigError, Key, Problem, key_text, printable

MAX_BYTES = 4 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
_ENV = re.compile(r"\$\$\{env:|\$\{env:(?:([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\})?")


@dataclass(frozen=True)
class Place:
    """Where a key stands: its line (from 1), and the text of its value as written, before substitution."""

    line: int
    written: str | None


@dataclass(frozen=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and the place of every key in it."""

    data: Any
    places: Mapping[Key, Place]

    def place(self, key: Key) -> Place:
        """The place of `key`, or the line of the nearest key above it."""
        for end in range(len(key), -1, -1):
            found = self.places.get(key[:end])
            if found is not None:
                return found if end == len(key) else Place(found.line, None)
        return Place(1, None)


def read_document(text: str, file: str, environ: Mapping[str, str] | None = None) -> Document:
    """Raises ConfigError for syntax errors, duplicate keys, unsupported tags and missing environment variables."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        said = ", ".join(printable(part, 200) for part in (error.context, error.problem) if part)
        raise ConfigError([Problem(file, line, "", f"This is not valid YAML: {said}.", _YAML_MEND)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([Problem(file, line, "", "This character is not allowed in YAML.", "Remove it.")]) from None
    except RecursionError:
        raise ConfigError([_too_large(file)]) from None
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError):
        # PyYAML lets a few of these out, for example of "\U7fffffff".
        raise ConfigError([Problem(file, None, "", "This is not valid YAML.", _YAML_MEND)]) from None
    if node is None:
        return Document(None, {})
    reader = _Reader(file, os.environ if environ is None else environ)
    data = reader.read(node, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return Document(data, reader.places)


_YAML_MEND = "Mind indentation, quotes and brackets near this line."


def _too_large(file: str, line: int | None = None) -> Problem:
    sentence = f"The document nests deeper than {MAX_DEPTH} levels or unfolds to more than {MAX_NODES:,} values."
    return Problem(file, line, "", sentence, "Check its aliases (*name) and brackets.")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2; it is used to compose nodes only, never to construct objects."""


_Loader.yaml_implicit_resolvers = {}

for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", list("-+.")),
):  # fmt: skip
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass
class _Reader:
    """Turns nodes into data and collects problems; it goes on after a problem so that all are shown at once."""

    file: str
    environ: Mapping[str, str]
    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def read(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MAX_NODES or len(key) > MAX_DEPTH:
            raise ConfigError([*self.problems, _too_large(self.file, line)])
        self.places.setdefault(key, Place(line, node.value if isinstance(node, yaml.ScalarNode) else None))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*key, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, key)
        self.problem(line, key, f"The tag {printable(node.tag)} is not supported.", "Remove it.")
        return None

    def mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                self.problem(line, key, "A key must be plain text.", "Remove the brackets or the question mark.")
                continue
            name: str = name_node.value
            if name == "<<" and name_node.style is None:
                self.problem(line, key, "Merge keys (<<) are not supported.", "Write the keys out.")
            elif name in data:
                first = self.places[(*key, name)].line
                self.problem(line, (*key, name), f"The key is given twice, first in line {first}.", "Remove one.")
            else:
                written = value_node.value if isinstance(value_node, yaml.ScalarNode) else None
                self.places[(*key, name)] = Place(line, written)
                data[name] = self.read(value_node, (*key, name))
        return data

    def scalar(self, node: yaml.ScalarNode, key: Key) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        try:
            if kind == "str":
                return self.substitute(text, node.start_mark.line + 1, key)
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if kind == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self.problem(node.start_mark.line + 1, key, f"The value is not a usable {kind}.", "Write another value.")
            return None
        self.problem(node.start_mark.line + 1, key, f"The tag {printable(node.tag)} is not supported.", "Remove it.")
        return None

    def substitute(self, text: str, line: int, key: Key) -> str:
        """`${env:NAME}`, `${env:NAME:-default}` (default also when empty), and `$${env:` for a literal `${env:`."""

        def value(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            if match.group().startswith("$$"):
                return match.group()[1:]
            if name is None:
                mend = "Write ${env:NAME} or ${env:NAME:-default}."
                self.problem(line, key, "This substitution is not complete.", mend)
                return ""
            found = self.environ.get(name)
            if default is not None:
                return found or default[2:]
            if found is None:
                mend = f"Set it, or write ${{env:{name}:-default}}."
                self.problem(line, key, f"The environment variable {name} is not set.", mend)
            return found or ""

        return _ENV.sub(value, text) if "${env:" in text else text

    def problem(self, line: int, key: Key, sentence: str, mend: str) -> None:
        self.problems.append(Problem(self.file, line, key_text(key), sentence, mend))
