"""The jars of Apache Kafka, fetched once by Maven and kept in the user's cache directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.components.need import MissingComponent

POM = Path(__file__).with_name("pom.xml")
DOWNLOAD_SECONDS = 600


def java() -> str:
    """Path of the Java program."""
    home = os.environ.get("JAVA_HOME", "")
    found = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if found is None:
        raise MissingComponent("there is no `java`; install Java 17 or later (Debian: default-jre-headless)")
    return found


def kafka_jars() -> Path:
    """The directory with the jars; the first call downloads 43 MB."""
    target = cache_directory() / f"kafka-{kafka_version()}"
    if not target.is_dir():
        _download(target)
    return target


def kafka_version() -> str:
    """The version that pom.xml asks for."""
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", POM.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{POM} names no version of kafka_2.13")
    return found[1]


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "modelwarden"


def _download(target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingComponent(f"{target} does not exist and there is no `mvn` to fill it; install Maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.part-") as part:
        jars = Path(part) / "jars"
        _copy_dependencies(maven, jars)
        try:
            jars.rename(target)  # all or nothing, also when two runs download at the same time
        except OSError:
            if not target.is_dir():
                raise


def _copy_dependencies(maven: str, jars: Path) -> None:
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise MissingComponent(f"Maven did not end within {DOWNLOAD_SECONDS} s") from None
    if result.returncode != 0 or not any(jars.glob("kafka_2.13-*.jar")):
        raise MissingComponent(f"Maven could not fetch the jars of Kafka:\n{(result.stdout + result.stderr)[-2000:]}")
