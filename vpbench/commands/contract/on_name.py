"""What a method says of itself, whatever it runs on."""

import dataclasses
import pickle
from pathlib import Path

from vpbench import plan, registry
from vpbench.api import Method
from vpbench.api.method import load_method
from vpbench.commands.contract.promise import Broken, promises, same


def has_a_summary(name: str) -> None:
    """the first line of the file says in a sentence what the method does"""
    said = registry.summary("methods", name)
    if not said.endswith("."):
        raise Broken(
            f"the file begins with {said!r}, expected a sentence that ends with a dot",
            'begin the file with """What it keeps.""", which `vpbench ls methods` shows',
        )


def names_its_source(name: str) -> None:
    """`reference` names paper, year and licence, and the class has a docstring"""
    kind = load_method(name)
    if not isinstance(kind.reference, str) or not kind.reference:
        raise Broken(f"reference is {kind.reference!r}, expected a text", 'set reference = "Authors, venue, licence"')
    if not kind.__doc__ or kind.__doc__.startswith(f"{kind.__name__}("):  # as dataclasses write it
        raise Broken(f"class {kind.__name__} has no docstring", "say in it what the parameters mean, and their units")


def has_plain_parameters(name: str) -> None:
    """parameters are fields of a frozen dataclass, numbers, words or switches, each with a default"""
    kind = load_method(name)
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise Broken(f"class {kind.__name__} can be changed", "make it @dataclass(frozen=True)")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            raise Broken(f"parameter {field.name} has no default", "give it one: a run may name the method alone")
    for parameter, kind_of in plan.parameters(name).items():
        if kind_of not in (int, float, str, bool):
            raise Broken(
                f"parameter {parameter} is a {kind_of.__name__}, expected an int, float, str or bool",
                "let it be one of these, which options, tables and ids can write down",
            )


def sets_what_is_there(name: str) -> None:
    """`set_by_keep` names parameters, and `flows` flows that there are"""
    kind = load_method(name)
    known = {field.name for field in dataclasses.fields(kind)}
    if alien := set(kind.set_by_keep) - known:
        raise Broken(f"set_by_keep names {', '.join(sorted(alien))}, expected some of {sorted(known)}", "name fields")
    flows = {"stream", "steps", "grid", "frames"}
    if not kind.flows or not set(kind.flows) <= flows:
        raise Broken(
            f"flows is {sorted(kind.flows)}, expected some of {sorted(flows)}", "name the flows that it prunes"
        )


def travels(name: str) -> None:
    """a method with its parameters is the same after pickling and after `dataclasses.replace`, and can be hashed"""
    method: Method = load_method(name)()
    advice = "keep nothing but parameters in it; what belongs to a network belongs into the pruner"
    same(pickle.loads(pickle.dumps(method)), method, "after pickling", advice)
    same(dataclasses.replace(method), method, "after dataclasses.replace", advice)
    same(hash(dataclasses.replace(method)), hash(method), "its hash after dataclasses.replace", advice)


def is_a_file_of_its_own(name: str) -> None:
    """the code that an id is made of can be read"""
    file = registry.source("methods", name)
    if not Path(file).is_file():
        raise Broken(f"{file} is no file", "ship the source with the package: rows are told apart by it")


ON_NAME = promises(
    has_a_summary, names_its_source, has_plain_parameters, sets_what_is_there, travels, is_a_file_of_its_own
)
