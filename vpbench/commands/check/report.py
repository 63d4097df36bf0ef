"""The gate's verdicts for a CI log, for its summary page (Markdown), and for its test report (JUnit XML)."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vpbench.commands.check.gate import Verdict
from vpbench.commands.output import write_file

#: differences of a cell that a log shows; JUnit has all
_SHOWN = 5


def lines(verdicts: Sequence[Verdict], written: Mapping[str, str]) -> Iterator[str]:
    """Yield a line per cell, the details of those that failed below them, and a summary."""
    wide = max(len(verdict.key) for verdict in verdicts)
    for verdict in verdicts:
        yield f"{verdict.state:<5} {verdict.key:<{wide}}  {_facts(verdict)}".rstrip()
        yield from (f"        {text}" for text in _details(verdict, _SHOWN))
    yield summary(verdicts)
    if any(verdict.state == "FAIL" for verdict in verdicts):
        yield "the baseline was made with " + ", ".join(f"{name} {value}" for name, value in written.items())


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts in a line."""
    counts = {state: sum(v.state == state for v in verdicts) for state in ("ok", "FAIL", "new")}
    noisy = sum(verdict.note.startswith("noisy") for verdict in verdicts)
    new = f", {counts['new']} new (not compared; add with --update)" if counts["new"] else ""
    warning = f", {noisy} timed on a noisy machine, where a small slowdown is not seen" if noisy else ""
    return f"{counts['ok']} cell{'s' * (counts['ok'] != 1)} passed, {counts['FAIL']} failed{new}{warning}"


def write_markdown(path: Path, verdicts: Sequence[Verdict], written: Mapping[str, str]) -> None:
    """Write the verdicts as a table and the details of failures, for $GITHUB_STEP_SUMMARY."""
    head = [f"### vpbench check: {summary(verdicts)}", "", _row(_COLUMNS), _row(["---"] * len(_COLUMNS))]
    failed = [verdict for verdict in verdicts if verdict.state == "FAIL"]
    details = [f"- `{v.key}`: {_escaped(text)}" for v in failed for text in _details(v, _SHOWN)]
    made = ["", "Baseline made with " + ", ".join(f"{name} {value}" for name, value in written.items())]
    text = "\n".join([*head, *map(_cells, verdicts), *([""] if details else []), *details, *made])
    write_file(path, text + "\n", "--markdown")


_COLUMNS = ("verdict", "cell", "clips", "agree", "KL to dense", "time", "expected")


def _cells(verdict: Verdict) -> str:
    found, timed = verdict.measured, verdict.speed
    mark = "**FAIL**" if verdict.state == "FAIL" else verdict.state
    known = ["", "", ""]
    if found is not None:
        known = [str(len(found.clips)), f"{found.agree:.2f}", "" if found.kl is None else f"{found.kl:.2g}"]
    time = "" if timed is None else f"{timed.ratio.value:.2f} [{timed.ratio.lo:.2f}, {timed.ratio.hi:.2f}]"
    stored = "" if verdict.expected_time is None else f"{verdict.expected_time:.2f}"
    return _row([mark, f"`{verdict.key}`", *known, time, stored])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def write_junit(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts as test cases: a suite per backbone, a case per method; new cells count as skipped."""
    root = ET.Element("testsuites", name="vpbench check")
    for backbone in dict.fromkeys(verdict.key.partition("/")[0] for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.key.startswith(f"{backbone}/")]
        counts = {name: str(sum(v.state == state for v in own)) for name, state in _STATES.items()}
        suite = ET.SubElement(root, "testsuite", {"name": backbone, "tests": str(len(own)), "errors": "0", **counts})
        for verdict in own:
            _case(suite, verdict)
    ET.indent(root)
    write_file(path, ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n", "--junit")


_STATES = {"failures": "FAIL", "skipped": "new"}


def _case(suite: ET.Element, verdict: Verdict) -> None:
    backbone, _, method = verdict.key.partition("/")
    case = ET.SubElement(suite, "testcase", classname=f"check.{backbone}", name=method)
    if verdict.state == "FAIL":
        failure = ET.SubElement(case, "failure", message=_printable(verdict.differences[0].text))
        failure.text = _printable("\n".join(_details(verdict, len(verdict.differences))))
    elif verdict.state == "new":
        ET.SubElement(case, "skipped", message=verdict.note)
    elif verdict.note:
        ET.SubElement(case, "system-out").text = verdict.note


def _printable(text: str) -> str:
    """Leave out what XML cannot hold: an error's message may have any character."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _facts(verdict: Verdict) -> str:
    """Say in short what was seen."""
    found, words = verdict.measured, list[str]()
    if found is not None:
        words = [f"{len(found.clips)} clips", f"agree {found.agree:.2f}"]
        words += [] if found.kl is None else [f"KL {found.kl:.2g}"]
    if verdict.speed is not None and verdict.expected_time is not None:
        against = f"that at {verdict.beside}" if verdict.beside else f"dense (stored {verdict.expected_time:.2f})"
        words.append(f"time {verdict.speed.ratio.value:.2f} of {against}")
    return ", ".join([*words, *([verdict.note] if verdict.note else [])])


def _details(verdict: Verdict, shown: int) -> Iterator[str]:
    """Yield the first differences and the hint of a cell that failed."""
    yield from (difference.text for difference in verdict.differences[:shown])
    if len(verdict.differences) > shown:
        yield f"and {len(verdict.differences) - shown} more (--junit FILE lists all)"
    if verdict.hint:
        yield f"hint: {verdict.hint}"
