"""One look per method, by its name, that can be told from others without colours."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.markers import MarkerStyle

from vpbench import registry
from vpbench.render.style import PAGES, look, look_of

METHODS = [name for name in registry.names("methods") if name != "dense" and not name.endswith("random")]


def light(colour: str) -> float:
    """Return relative luminance, after WCAG."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", [*METHODS, "dense", "random", "somebodys_method"])
def test_a_look_can_be_seen_on_white_and_on_black_and_is_drawn_by_both(name: str) -> None:
    own = look_of(name)
    assert contrast(own.colour, "#ffffff") >= 3
    assert contrast(own.night, "#14171a") >= 3
    MarkerStyle(own.marker)
    assert own.path.startswith("M")
    assert look(name, PAGES["paper"])["color"] == own.colour


def test_no_two_methods_look_alike_without_colours_either_where_they_share_one() -> None:
    looks = {name: look_of(name) for name in METHODS}
    assert len(set(looks.values())) == len(looks)
    for one, other in itertools.combinations(looks.values(), 2):
        assert one.colour != other.colour or (one.marker, one.dashes) != (other.marker, other.dashes)
    compared = [looks[name] for name in ("rlt", "sta", "rgtp", "stts", "tome", "tdiff", "topk")]
    assert len({each.colour for each in compared}) == len({each.marker for each in compared}) == len(compared)


def test_methods_of_anybody_have_a_look_of_their_own_that_stays() -> None:
    assert look_of("somebodys_method") == look_of("somebodys_method")
    assert len({look_of(f"method{number}") for number in range(40)}) > 30


def test_curves_of_one_method_share_the_colour_and_nothing_else() -> None:
    first, second = look_of("tome"), look_of("tome", 1)
    assert first.colour == second.colour
    assert (first.marker, first.dashes) != (second.marker, second.dashes)


def test_random_controls_are_grey_and_a_methods_own_has_its_marker() -> None:
    assert {look_of(name).colour for name in ("random", "stts_random", "rgtp_random")} == {look_of("random").colour}
    assert look_of("stts_random").marker == look_of("stts").marker
