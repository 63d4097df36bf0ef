"""`vpbench verify`: find cases, run each with the code for its method, print what agrees and what does not."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vpbench.commands.verify import (
    eventful_vitdet,
    eventful_vivit,
    rgtp_metric,
    rgtp_vitdet,
    rgtp_vivit,
    rlt,
    sta,
    stts_mvit,
    stts_swin,
    tome,
)
from vpbench.commands.verify.case import Case, find, load
from vpbench.commands.verify.compare import Check, Result, compare
from vpbench.errors import NothingMeasured, UsageError, VpbenchError, explain, near_matches

#: exit codes, the first that applies: a tensor missed, a folder was malformed, nothing was compared
MISS, MALFORMED, NOTHING = 1, UsageError.exit_code, NothingMeasured.exit_code


@dataclass(frozen=True)
class Format:
    """The code for one kind of case: `run` computes all tensors we know, `checks` says how each is compared."""

    run: Callable[[Case], dict[str, Tensor]]
    checks: Callable[[Case, dict[str, Tensor]], dict[str, Check]]


#: by the `kind` that case.json names, for cases that run no method
KINDS = {"metric": Format(rgtp_metric.run, rgtp_metric.checks)}
#: by the `method` that case.json names, or the method on the `backbone` that it names, for all others
FORMATS = {
    "rlt": Format(rlt.run, rlt.checks),
    "sta": Format(sta.run, sta.checks),
    "tome": Format(tome.run, tome.checks),
    "stts-mvit": Format(stts_mvit.run, stts_mvit.checks),
    "stts-swin": Format(stts_swin.run, stts_mvit.checks),
    "rgtp on vivit_factorised_encoder": Format(rgtp_vivit.run, rgtp_vivit.checks),
    "eventful on vivit_factorised_encoder": Format(eventful_vivit.run, eventful_vivit.checks),
    "eventful on vitdet": Format(eventful_vitdet.run, eventful_vitdet.checks),
    "none on vitdet": Format(rgtp_vitdet.run, rgtp_vitdet.checks),
    "rgtp on vitdet": Format(rgtp_vitdet.run, rgtp_vitdet.checks),
    "stts (both backbones)": Format(stts_mvit.run_operator, stts_mvit.checks),
}


@dataclass(frozen=True)
class Report:
    """What came of one case, or of a folder without any; `problem` says why it could not be compared."""

    folder: Path
    results: tuple[Result, ...] = ()
    problem: str = ""
    code: int = 0

    @property
    def missed(self) -> list[str]:
        """Names of the tensors that do not agree."""
        return [result.name for result in self.results if not result.ok]

    def lines(self) -> list[str]:
        """Return one line for the case and one for each tensor."""
        verdict, count = ("MISS" if self.missed else "ok"), len(self.results)
        return [f"{verdict:<5} {self.folder}: {count - len(self.missed)} of {count} agree", *map(str, self.results)]


def verify(folders: Iterable[Path], say: Callable[[str], None], complain: Callable[[str], None]) -> int:
    """Verify all cases in `folders`; returns the exit code: the first of `MISS`, `MALFORMED`, `NOTHING` that applies.

    What was compared is told through `say`, one line for each folder that could not be through `complain`.
    """
    reports = []
    for folder in folders:
        for report in reports_of(folder):
            if report.problem:
                complain(f"error: {report.problem}")
            else:
                say("\n".join(report.lines()))
            reports.append(report)
    if any(report.results for report in reports):
        say(summary(reports))
    codes = {report.code for report in reports}
    return next((code for code in (MISS, MALFORMED, NOTHING) if code in codes), 0)


def reports_of(folder: Path) -> Iterable[Report]:
    """Verify the cases in one folder, one after the other."""
    try:
        cases = find(folder)
    except UsageError as error:
        return [Report(folder, problem=str(error), code=MALFORMED)]
    if not cases:
        return [Report(folder, problem=f"{folder}: no case.json in it, nothing to compare", code=NOTHING)]
    return (report_of(case) for case in cases)


def report_of(folder: Path) -> Report:
    """Verify one case; whatever goes wrong becomes its report, so that other cases still run."""
    try:
        results = results_of(load(folder))
    except VpbenchError as error:
        return Report(folder, problem=str(error), code=error.exit_code)
    except Exception as error:  # our own code failed on it: that is a miss, and the other cases still run
        return Report(folder, problem=f"{folder}: {explain(error)}", code=MISS)
    return Report(folder, tuple(results), code=0 if all(result.ok for result in results) else MISS)


def results_of(case: Case) -> list[Result]:
    """Run a case and compare every tensor that it holds.

    Raises UsageError for cases that are malformed or of unknown kind, NothingMeasured if it expects nothing.
    """
    if not case.expected:
        raise NothingMeasured(f"{case.folder}: expected.safetensors holds no tensor, nothing to compare")
    form = format_of(case)
    return compare(case.expected, form.checks(case, form.run(case)))


def format_of(case: Case) -> Format:
    """Return the code for a case; raises UsageError for a `kind` or a `method` that nobody knows."""
    key, known = ("kind", KINDS) if "kind" in case.settings else ("method", FORMATS)
    name = str(case.settings.get(key))
    on_backbone = f"{name} on {case.settings.get('backbone')}"
    name = on_backbone if on_backbone in known else name
    if name not in known:
        raise case.wrong(f"case.json, unknown {key} {name!r}{near_matches(name, known)}")
    return known[name]


def summary(reports: list[Report]) -> str:
    """Return the last line: cases and tensors, and what missed."""
    compared = [report for report in reports if report.results]
    tensors = sum(len(report.results) for report in compared)
    missed = [f"{report.folder.name}/{name}" for report in compared for name in report.missed]
    errors = len(reports) - len(compared)
    ok = sum(not report.missed for report in compared)
    line = f"{len(compared)} cases compared, {ok} ok; {tensors} comparisons, {len(missed)} missed"
    line += f"; {errors} could not be compared" if errors else ""
    return f"{line}: {', '.join(missed)}" if missed else line
