"""Figures of a paper, drawn from rows alone: one file per figure, and `catalog`, which says what rows allow."""
