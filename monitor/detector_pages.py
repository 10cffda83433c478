"""Reference pages of the detectors, written from their declarations, docstrings and parameters."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alerts.attribution import MOVE_WORDS, SECOND_STAGE, attack_of_move
from detectors.base import Detector, registry
from detectors.moves import second_stage
from detectors.traffic import subject as traffic

NOTE: Final = "<!-- written by `python -m monitor.docs_pages`: change the source, not this page -->\n"
_TRAFFIC_INPUTS: Final = "access topics, predictions of models, metric series"
_MOVES_INPUTS: Final = "client, features, reference; a test of queries that suspects"
_SCOPES: Final = {
    "model": "the model as a whole",
    "client": "each client by itself",
    "feature": "each field by itself",
    "stream": "each stream by itself",
}


def detector_pages() -> dict[str, str]:
    """Every page below docs/detectors/ by file name, README.md among them."""
    detectors = registry()
    pages = {f"{name}.md": _page(detector) for name, detector in detectors.items()}
    pages[f"{traffic.NAME}.md"] = _traffic_page()
    pages[f"{SECOND_STAGE}.md"] = _moves_page()
    pages["README.md"] = _index(detectors)
    return pages


def raises(detector: type[Detector]) -> tuple[str, ...]:
    """The kinds of incident a detector leads to."""
    return (detector.kind,) if detector.raises is None else detector.raises


def kinds_of() -> dict[str, tuple[str, ...]]:
    """Kinds of incident by detector, the second stage of attack detection and `traffic` included."""
    found = {name: raises(detector) for name, detector in registry().items()}
    found[SECOND_STAGE] = tuple(dict.fromkeys(attack_of_move(move) for move in MOVE_WORDS))
    return found | {traffic.NAME: tuple(dict.fromkeys(traffic.KINDS.values()))}


def parameters(params: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each field; the meaning is the text or the comment below it in the source."""
    for field in dataclasses.fields(params):
        owner = next(c for c in params.__mro__ if field.name in inspect.get_annotations(c))
        default = "required" if field.default is dataclasses.MISSING else repr(field.default)
        yield field.name, default, _meanings(owner).get(field.name, "")


def _meanings(cls: type[Any]) -> dict[str, str]:
    """What stands below each field of a class: a string, or comment lines up to the next field."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            text = after.value.value
        else:
            below = lines[node.end_lineno : after.lineno - 1 if after is not None else len(lines)]
            text = " ".join(line.strip().lstrip("#") for line in below if line.strip().startswith("#"))
        found[node.target.id] = " ".join(text.split())
    return found


def _page(detector: type[Detector]) -> str:
    facts = [
        ("needs", ", ".join(sorted(detector.inputs))),
        ("looks at", _SCOPES[detector.scope]),
        ("budget", _budget(detector)),
        ("raises", _raised(detector)),
        ("MITRE ATLAS", ", ".join(detector.atlas)),
        ("derived columns", ", ".join(detector.views)),
        ("gives others", ", ".join(detector.gives)),
        ("state version", str(detector.state_version)),
        ("source", f"`{detector.__module__.replace('.', '/')}.py`"),
    ]
    parts = [f"# {detector.name}\n{NOTE}", _prose(detector), _table(("", ""), [f for f in facts if f[1]])]
    return "\n".join([*parts, _parameters(detector.name, detector.Params)])


def _budget(detector: type[Detector]) -> str:
    if detector.account is None:
        return "none: an exact rule" if raises(detector) else "none"
    if detector.account == "attack":
        return "`budget.attack`, shared by the tests of clients"
    return f"{detector.share:.0%} of `budget.{detector.account}`"


def _raised(detector: type[Detector]) -> str:
    kinds = _links(raises(detector)) or "nothing itself"
    if detector.account == "attack":
        return f"{kinds}, or the attack for which the client's evidence of all tests speaks most"
    return kinds


def _prose(detector: type[Detector]) -> str:
    """Class, then module, then the classes it builds on, each said once; not those that declare nothing about it."""
    declared = inspect.get_annotations(Detector).keys()
    bases = [c for c in detector.__mro__ if c is not Detector and issubclass(c, Detector) and declared & vars(c).keys()]
    texts = []
    for cls in bases:
        texts += [cls.__dict__.get("__doc__"), sys.modules[cls.__module__].__doc__]
    return "\n\n".join(_markdown(text) for text in dict.fromkeys(texts) if text) + "\n"


def _markdown(text: str) -> str:
    return inspect.cleandoc(text).strip()


def _parameters(name: str, params: type[Any]) -> str:
    rows = [(f"`{key}`", meaning, f"`{default}`") for key, default, meaning in parameters(params)]
    if not rows:
        return f"## Parameters\nNone but `enabled`, under `detectors.{name}`.\n"
    head = f"## Parameters\nUnder `detectors.{name}` in `modelwarden.yaml`; `enabled: false` turns it off.\n\n"
    return head + _table(("key", "meaning", "default"), rows)


def _traffic_page() -> str:
    facts = [
        ("needs", _TRAFFIC_INPUTS),
        ("looks at", "each topic of requests, each model and each series by itself"),
        ("budget", "`budget.traffic`, one account a subject; the silence of a metric is an exact rule"),
        ("raises", _links(kinds_of()[traffic.NAME])),
        ("state version", str(traffic.STATE_VERSION)),
        ("source", "`detectors/traffic/subject.py`"),
    ]
    rows = [(f"`{name}`", _links([kind])) for name, kind in traffic.KINDS.items()]
    return "\n".join(
        [
            f"# {traffic.NAME}\n{NOTE}",
            _markdown(traffic.__doc__ or "") + "\n",
            _table(("", ""), facts),
            "## Watched quantities\n" + _table(("quantity", "kind"), rows),
            f"## Parameters\n`detectors.{traffic.NAME}.enabled: false` turns it off; `budget.traffic` says how many "
            "false alarms it may cost.\n",
        ]
    )


def _moves_page() -> str:
    facts = [
        ("needs", _MOVES_INPUTS),
        ("looks at", "each client by itself, and clients that act alike"),
        ("budget", "`budget.attack`: it names at a hundredth of the evidence at which the tests of queries suspect"),
        ("raises", _links(kinds_of()[SECOND_STAGE])),
        ("source", "`detectors/moves/second_stage.py`"),
    ]
    rows = [(f"`{move}`", words, _links([attack_of_move(move)])) for move, words in MOVE_WORDS.items()]
    return "\n".join(
        [
            f"# {SECOND_STAGE}\n{NOTE}",
            _markdown(second_stage.__doc__ or "") + "\n\nHow it works, and what it cannot tell: `docs/attacks.md`.\n",
            _table(("", ""), facts),
            "## Evidence\n" + _table(("name", "what the queries do", "kind"), rows),
            f"## Parameters\n`detectors.{SECOND_STAGE}.enabled: false` turns it off. The tests of queries then name by "
            "themselves whom they suspect: sooner, and with many honest look-alikes (`docs/measured.md`).\n",
        ]
    )


def _index(detectors: Mapping[str, type[Detector]]) -> str:
    every = kinds_of()
    needs = {name: ", ".join(sorted(d.inputs)) for name, d in detectors.items()}
    needs |= {traffic.NAME: _TRAFFIC_INPUTS, SECOND_STAGE: _MOVES_INPUTS}
    firsts = {name: _first_line(d) for name, d in detectors.items()}
    firsts |= {traffic.NAME: _first(traffic.__doc__ or ""), SECOND_STAGE: _first(second_stage.__doc__ or "")}
    rows = [
        (f"[{name}]({name}.md)", firsts[name], needs[name], _links(every[name]) or "nothing itself")
        for name in sorted(every)
    ]
    head = (
        f"# Detectors\n{NOTE}\nA detector without one of its inputs is off for that model, and `reference show` says "
        "so. What to do about an incident: [docs/incidents](../incidents/README.md).\n\n"
    )
    return head + _table(("detector", "what it looks at", "needs", "raises"), rows)


def _first_line(detector: type[Detector]) -> str:
    return _first(detector.__doc__ or "")


def _first(text: str) -> str:
    return " ".join(_markdown(text).split("\n\n")[0].split())


def _links(kinds: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"[{kind}](../incidents/{kind}.md)" for kind in kinds)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
