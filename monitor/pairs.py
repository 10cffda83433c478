"""Which request topic and which response topic belong together, as the configuration says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from monitor.config import KeyProblem, Topic
from monitor.intake.formats.base import HALVES
from monitor.intake.pairing import PairingRules


def pairings(topics: Sequence[Topic]) -> dict[str, PairingRules]:
    """The pairing of each request and response topic, by topic. Topics that `pairing_problems` refuses have none."""
    found: dict[str, PairingRules] = {}
    for topic in topics:
        request = request_of(topic, topics)
        if request is not None:
            rules = PairingRules(request, topic.pair_within.total_seconds())
            found[request] = found[topic.name] = rules
    return found


def request_of(topic: Topic, topics: Sequence[Topic]) -> str | None:
    """The request topic of a response topic: the named one, else the only one of this format; else None."""
    if topic.type != "response":
        return None
    requests = _requests(topic, topics)
    if topic.pairs_with is not None:
        return topic.pairs_with if topic.pairs_with in requests else None
    return requests[0] if len(requests) == 1 else None


def pairing_problems(topics: Sequence[Topic]) -> Iterator[KeyProblem]:
    """Requests without responses and the reverse, and keys that mean nothing."""
    answered: dict[str, str] = {}
    for i, topic in enumerate(topics):
        here = ("kafka", "topics", i)
        if topic.type in HALVES:
            yield from _client_problems(i, topic)
        if topic.type != "response":
            for name in sorted({"pairs_with", "pair_within"} & topic.model_fields_set):
                yield KeyProblem((*here, name), "This has a meaning only on a topic of type response.", "Remove it.")
            continue
        request, requests = request_of(topic, topics), _requests(topic, topics)
        if request is None:
            what = f"It is not clear which topic holds the requests of {topic.name}."
            known = f"pairs_with: one of {', '.join(requests)}" if requests else "a topic of type request"
            at = "pairs_with" if topic.pairs_with is not None else "type"
            yield KeyProblem((*here, at), what, f"Add {known}, in the same format.")
        elif request in answered:
            what = f"The requests of {request} are joined to {answered[request]} already."
            yield KeyProblem((*here, "name"), what, "Name another request topic under pairs_with.")
        else:
            answered[request] = topic.name
    for i, topic in enumerate(topics):
        if topic.type == "request" and topic.name not in answered:
            what = f"No response topic belongs to {topic.name}, so its requests would never become predictions."
            yield KeyProblem(("kafka", "topics", i, "type"), what, "List the topic of the responses, type: response.")


def _client_problems(i: int, topic: Topic) -> Iterator[KeyProblem]:
    """The key and the id join records and name events, both in clear."""
    for j, place in enumerate(topic.client_from):
        if place.kind == "key" or (place.kind == "field" and place.name == "id"):
            what = "This is the id of the request, which is kept in clear, so it cannot name the client."
            yield KeyProblem(("kafka", "topics", i, "client_from", j), what, "Write header:NAME or field:PATH.")


def _requests(topic: Topic, topics: Sequence[Topic]) -> list[str]:
    return [t.name for t in topics if t.type == "request" and t.format == topic.format]
