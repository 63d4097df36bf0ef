"""What a method keeps to besides where tokens form a grid."""

from vpbench.commands.contract.promise import close, promises, same
from vpbench.commands.contract.trial import Trial, run
from vpbench.errors import UsageError
from vpbench.measure.watch.clips import watched
from vpbench.tasks.recognition.session import to_batch


def can_be_watched(trial: Trial) -> None:
    """the fate of every token can be told: what is left of the grid is what entered the last block"""
    batch, network = to_batch(trial.clips[-1:], "cpu"), trial.network
    whole = trial.dense(trial.clips[-1:])
    fixed = whole.counts[0].attention[0] - network.grid.tokens  # a class token
    for keep in (0.25, 0.5, 1.0) if trial.prunes else (1.0,):
        try:
            method = trial.ready(keep)
        except UsageError:
            continue
        plain = run(network, batch, method.attach(network))
        found = watched(network, batch, method.attach(network), values=True)
        advice = "move tokens by indexing and gather, and let nothing depend on whether `record` is asked for"
        close(found.output.logits, plain.logits, "logits while watched and else", advice, 1e-6)
        same(found.output.counts == plain.counts, True, "equal counts while watched and else", advice)
        last, all_of_it = (out.counts[-1].attention[0] - fixed for out in (found.output, whole))
        # the network pools as much with a method as without
        expected = last * found.fate.tokens // all_of_it
        same(found.fate.left(), expected, f"tokens that survive at keep {keep:g}", advice)


ON_GRID = promises(can_be_watched)
