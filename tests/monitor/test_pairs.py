"""Which topics hold the two halves of predictions, and what is said of configurations that leave it open."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from monitor.assembly import pipeline_settings, registry_checks, without_effect
from monitor.config import Config, parse_config
from monitor.intake.identity import Pseudonyms
from monitor.intake.pairing import PairingRules
from tests.readme import yaml_block

IN, OUT = "{name: in, format: oip-v2, type: request}", "{name: out, format: oip-v2, type: response}"


def config(*topics: str) -> Config:
    return parse_config(f"kafka: {{bootstrap_servers: [a:1], topics: [{', '.join(topics)}]}}", Path("f.yaml"))


def problems(*topics: str) -> list[str]:
    return [f"{'.'.join(map(str, p.key[2:]))}: {p.sentence} {p.mend}" for p in registry_checks(config(*topics))]


def test_the_only_two_topics_belong_together() -> None:
    assert problems(IN, OUT, "{name: p, type: prediction}") == []
    made = pipeline_settings(config(IN, OUT, "{name: p}"), Pseudonyms(b"", plain=True), b"k").intakes
    assert made["in"].pairing == made["out"].pairing == PairingRules("in", 600.0)
    assert made["in"].rules.type == "request" and made["p"].pairing is None


def test_several_pairs_are_told_apart_by_name() -> None:
    other_in, other_out = IN.replace(" in", " in2"), "{name: o2, format: oip-v2, type: response, pairs_with: in2}"
    named = OUT.replace("}", ", pairs_with: in, pair_within: 30s}")
    assert problems(IN, named, other_in, other_out) == []
    made = pipeline_settings(config(IN, named, other_in, other_out), Pseudonyms(b"", plain=True), b"k").intakes
    assert made["out"].pairing == PairingRules("in", timedelta(seconds=30).total_seconds())
    assert made["o2"].pairing == made["in2"].pairing == PairingRules("in2", 600.0)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ((IN,), ["0.type: No response topic belongs to in"]),
        ((OUT,), ["0.type: It is not clear which topic holds the requests of out. Add a topic of type request"]),
        ((IN, IN.replace(" in", " in2"), OUT), ["2.type: It is not clear", "0.type: No", "1.type: No"]),
        ((IN, OUT.replace("}", ", pairs_with: no}")), ["1.pairs_with: It is not clear", "0.type: No"]),
        ((IN, OUT, OUT.replace("out", "o2")), ["2.name: The requests of in are joined to out already"]),
        ((IN.replace("}", ", client_from: [key]}"), OUT), ["0.client_from.0: This is the id of the request"]),
        ((IN.replace("}", ', client_from: ["field:id"]}'), OUT), ["0.client_from.0: This is the id of the request"]),
        (("{name: p, pairs_with: in}",), ["0.pairs_with: This has a meaning only on a topic of type response"]),
        (("{name: p, format: oip-v2}",), ["0.type: Format oip-v2 does not read topics of type auto"]),
        (
            ("{name: p, type: label, format: oip-v2}",),
            ["0.type: Format oip-v2 does not read topics of type label. It reads type: request or response;"],
        ),
        (("{name: p, format: nosuch}",), ["0.format: There is no format 'nosuch'"]),
    ],
)
def test_mistakes_are_named_with_their_mend(topics: tuple[str, ...], said: list[str]) -> None:
    found = problems(*topics)
    assert len(found) == len(said)
    for problem, beginning in zip(found, said, strict=True):
        assert problem.startswith(beginning)


def test_native_events_are_no_requests() -> None:
    found = problems(IN.replace("oip-v2", "native"), OUT.replace("oip-v2", "native"))
    assert [p.split(":")[0] for p in found] == ["0.type", "1.type"] and "oip-v2" in found[0]


def test_the_configuration_in_the_readme_is_complete() -> None:
    shown = parse_config(yaml_block("modelwarden.yaml for MLServer"), Path("README.md"))
    assert list(registry_checks(shown)) == [] and list(without_effect(shown)) == []
    made = pipeline_settings(shown, Pseudonyms(b"", plain=True), b"k").intakes
    assert {i.pairing for i in made.values()} == {PairingRules("mlserver-input", 600.0)}
