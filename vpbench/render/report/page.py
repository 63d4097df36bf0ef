"""The page itself: static text in HTML, what is drawn as JSON beside the script, nothing from anywhere else.

Plots are SVG drawn by a script of our own instead of a plotting library: every point can then be reached by keyboard
and read aloud, follows light and dark, and the page stays small (a library that draws as much is 0.9 MB in each page,
and lets no key reach a point). What is drawn (axes and their ranges, fronts, looks) is declared once, for the figures
of papers too, in `render.points` and `render.style`; the script only puts it into pixels. Names of files and methods,
errors and commands are not ours: they reach the page escaped, and a content security policy with the digests of our
own script and style keeps anything else from running or loading.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import vpbench
from vpbench.errors import VpbenchError
from vpbench.render.report.analyses import Answer
from vpbench.render.report.content import Section
from vpbench.storage import make_folder, write_whole

TITLE = "vpbench report"
NO_PICTURES = (
    "No pictures of tokens are stored with these rows: new runs store them, and "
    "<code>vpbench show CLIP --method ...</code> draws those of any clip."
)
ABOUT_PICTURES = (
    "One setting of each method, that nearest to half of the tokens. Dropped tokens and frames are pale; tokens that "
    "were merged have their mean colour and a rim; frames made smaller are as coarse as the network sees them."
)
#: what of a section the script draws
_DRAWN = ("chart", "summary", "table", "metrics")
_SCRIPTS = ("parts.js", "chart.js", "table.js", "page.js")


def write(path: Path, content: str) -> None:
    """Write a page whole or not at all; raises VpbenchError where the folder refuses."""
    try:
        make_folder(path.parent)
        write_whole(path, content.encode())
    except OSError as error:
        raise VpbenchError(f"{path}: cannot write ({error.strerror or error}); name another file with --out") from error


def render(sections: Sequence[Section], source: str, problems: Sequence[str]) -> str:
    """Return the HTML of a report. source: the results folder; problems: files that could not be read."""
    style, script = _asset("style.css"), "\n".join(map(_asset, _SCRIPTS))
    return Template(_asset("page.html")).substitute(
        title=escape(f"{TITLE}: {source}"),
        style=style,
        style_digest=_digest(style),
        script=script,
        script_digest=_digest(script),
        headline=escape(_headline(sections)),
        navigation=_navigation(sections),
        body="\n".join([*map(_problem, problems), *(_section(i, section) for i, section in enumerate(sections))]),
        footer=escape(f"Written by vpbench {vpbench.__version__} from the rows in {source}."),
        data=_json({"sections": [_drawn(section) for section in sections]}),
    )


def _drawn(section: Section) -> dict[str, Any]:
    """Return what the script draws of a section, by the names that its elements have."""
    return {name: getattr(section, name) for name in _DRAWN} | {answer.name: table for answer, table in section.answers}


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(content: Any) -> str:
    """Return JSON that cannot end the element it stands in."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _headline(sections: Sequence[Section]) -> str:
    methods = set().union(*(section.methods for section in sections))
    failed = sum(len(section.failures) for section in sections)
    text = f"{_count(len(methods), 'method')}, {_count(sum(s.settings for s in sections), 'setting')}"
    text += f" in {len(sections)} sections, which are not to be compared with each other" * (len(sections) > 1)
    return text + (f"; {failed} failed or incomplete." if failed else ".")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _navigation(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(
        f'<li><a href="#section-{i}">{escape(section.title)}</a></li>' for i, section in enumerate(sections)
    )
    return f'<nav aria-label="Sections"><ul>{links}</ul></nav>'


def _problem(problem: str) -> str:
    return f'<p class="notice">Warning: {escape(problem)}</p>'


def _section(number: int, section: Section) -> str:
    answer = "".join(f"<p>{escape(line)}</p>" for line in section.claims.answer)
    parts = [
        f'<h2 id="title-{number}">{escape(section.title)}</h2>',
        f'<p class="soft setup">{escape(section.setup)}</p>',
        f'<div class="claims">{answer}</div>',
        f'<div class="first">{_chart(section)}{_summary(section)}</div>',
        *(f"<p>{escape(line)}</p>" for line in section.claims.front),
        _list("What each method shows", section.claims.methods),
        _list("What is not shown", section.claims.limits),
        _failures(section),
        '<h3>All settings</h3><div class="listing" data-of="table"></div>',
        _details("How to read the table, and how it was measured", section.notes),
        _metrics(section),
        *(_answer(answer) for answer, _ in section.answers),
        _details("Analyses that are not there, and why", section.unanswered),
        _pictures(section),
        _list("From files to the model", section.reading),
        _provenance(section),
    ]
    return f'<section id="section-{number}" aria-labelledby="title-{number}">{"".join(parts)}</section>'


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h3>{escape(title)}</h3><ul>{items}</ul>" if items else ""


def _details(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<details><summary>{escape(title)}</summary><ul>{items}</ul></details>" if items else ""


def _chart(section: Section) -> str:
    if not section.chart["points"]:
        return ""
    return '<div><h3>Quality against cost</h3><figure class="chart"></figure></div>'


def _summary(section: Section) -> str:
    if not section.summary["rows"]:
        return ""
    return '<div><h3>A setting of each method</h3><div class="listing" data-of="summary"></div></div>'


def _metrics(section: Section) -> str:
    if section.metrics is None:
        return _details("Why there are no Pareto metrics", section.metric_notes)
    notes = _details("How to read the metrics, and why some are missing", section.metric_notes)
    return f'<h3>Pareto metrics of each method</h3><div class="listing" data-of="metrics"></div>{notes}'


def _answer(answer: Answer) -> str:
    caption = escape(answer.picture.caption)
    return (
        f'<h3>{escape(answer.title.capitalize())}</h3><figure><img class="drawn" src="{answer.picture.source}" '
        f'alt="{caption}"></figure><div class="listing" data-of="{escape(answer.name)}"></div>'
        f"{_details('How to read it', answer.notes)}"
    )


def _pictures(section: Section) -> str:
    title = "<h3>What is left of a clip</h3>"
    if not section.pictures:
        return f'{title}<p class="soft">{NO_PICTURES}</p>'
    drawn = "".join(
        f'<figure><img src="{picture.source}" alt="{escape(picture.caption)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in section.pictures
    )
    return f'{title}<p class="soft">{ABOUT_PICTURES}</p><div class="pictures">{drawn}</div>'


def _failures(section: Section) -> str:
    items = [f"{name}: {status}: {reason}" for name, status, reason in section.failures]
    unread = [f"{name}: {reason}" for name, reason in section.unread]
    return _list("Failed and incomplete", items) + _details(f"{len(unread)} could not be read", unread)


def _provenance(section: Section) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(title)}</th><td>{"<br>".join(map(_code, values))}</td></tr>'
        for title, values in section.provenance
    )
    return f'<h3>Provenance</h3><table class="pairs"><tbody>{rows}</tbody></table>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
