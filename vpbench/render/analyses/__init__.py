"""Questions about stored rows, each answered by a table and a figure: where methods differ, and on which videos."""
