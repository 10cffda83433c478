"""`modelwarden init`: a commented configuration to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from monitor.cli.failures import CommandError
from monitor.cli.options import ConfigFile, read_config
from monitor.cli.output import print_line

NAME: Final = "modelwarden.yaml"
_HERE: Final = Path(".")
START: Final = """\
# ModelWarden. Every key, its meaning and its default: docs/configuration.md.
# What a line of comment shows is an example: take away the "# " to use it.
# ${env:NAME} and ${env:NAME:-default} stand for environment variables; relative paths start from this directory.
# Check it with `modelwarden check-config`, and what it points to with `modelwarden doctor`.

# Where the events come from.
kafka:
  bootstrap_servers: ["${env:KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}"]
  group: modelwarden            # names this installation, in the database too
  topics:
    - name: predictions         # JSON, one object a message: docs/schema/native-event.schema.json
      type: prediction
      start: latest             # or earliest, or a time; only for the very first start
      client_from: ["field:client"]
    # - {name: labels, type: label}
  # security: {security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512, sasl_plain_username: mw,
  #            sasl_plain_password_file: kafka.password, ssl_cafile: ca.pem}

# Counts, detector state and incidents. SQLite serves one daemon; PostgreSQL a second one that stands by.
store:
  url: "sqlite:///modelwarden.db"
  # url: "postgresql+psycopg://modelwarden@db/modelwarden"

# Clients are stored as keyed hashes. Beside SQLite a key is made at the first start; PostgreSQL needs a file.
# identity: {key_file: /etc/modelwarden/identity.key}

# How many false alarms a model may cost, on average.
budget:
  per: 30d
  drift: 1

models:
  auto: {max: 200}              # models that are not listed are watched too, up to this many
  # credit-risk:
  #   owner: risk-team
  #   reference: refs/credit.jsonl.gz     # rows that show what is usual; without it the first 500 events are
  #                                       # a provisional reference. `modelwarden reference build` makes one
  #   features: [income, region]
  #   budget: {drift: 2}

# Who is told. Without routes every incident of severity warning or above goes to every receiver.
# receivers:
#   am: {type: alertmanager, urls: ["http://127.0.0.1:9093"]}

# off: a dry run, nobody is told.
notify: on

# Metrics and health.
api:
  listen: "127.0.0.1:9464"
"""


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", show_default=False, help="Where; default here.")] = (
        _HERE
    ),
    config: ConfigFile = None,
) -> None:
    """Write a commented modelwarden.yaml to start from.

    A file that is there is left as it is. A configuration given here is only checked.
    """
    if config is not None:
        read_config(config)
    file = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(START)
    except FileExistsError:
        what = file if file.exists() else f"{directory} is not a directory; it"
        raise CommandError(f"{what} exists already: name another directory, or remove it first") from None
    print_line(f"{file} written; next: edit it, then modelwarden check-config {file}")
