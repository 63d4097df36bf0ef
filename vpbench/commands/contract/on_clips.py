"""What a method keeps to on every network that classifies clips, whatever its flow."""

import dataclasses

import torch

from vpbench.api import ClipBatch, Method
from vpbench.commands.contract import contexts, halves
from vpbench.commands.contract.promise import Broken, Unchecked, close, promises, same
from vpbench.commands.contract.trial import Trial, run
from vpbench.errors import UsageError
from vpbench.measure.operators import operators
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import to_batch

#: keep ratios whose parameters are looked at
SET = (0.3, 0.5, 0.7)


def keeps_all_at_one(trial: Trial) -> None:
    """keep 1.0 gives the logits of dense"""
    exact = trial.network.flow != "stream"  # where a stream is cut up and packed anew, sums may come in another order
    close(
        trial.logits(trial.ready(1.0)),
        trial.dense().logits,
        "logits at keep 1.0 and dense ones",
        "let at_keep(1.0) leave every token as it is and where it is",
        *((0.0, 0.0) if exact else (1e-5, 1.3e-6)),
    )


def names_what_a_keep_sets(trial: Trial) -> None:
    """`set_by_keep` names what at_keep changes, and a keep ratio changes something"""
    if not trial.prunes:
        raise Unchecked("it prunes nothing")
    plain, derived = trial.kind(), []
    for keep in SET:
        try:
            derived.append(trial.ready(keep))
        except UsageError:
            continue
    if not derived:
        raise Broken(f"at_keep refuses all of {SET}", "let it reach at least one of them on a small network")
    names = [field.name for field in dataclasses.fields(plain)]
    changed = {each for each in names for one in derived if getattr(one, each) != getattr(plain, each)}
    if not changed or not changed <= set(trial.kind.set_by_keep):
        raise Broken(
            f"at_keep changes {sorted(changed) or 'nothing'}, set_by_keep names {sorted(trial.kind.set_by_keep)}",
            "name in set_by_keep what at_keep replaces: a request for both would contradict itself",
        )


def is_alone_in_a_batch(trial: Trial) -> None:
    """the logits of a clip do not depend on its neighbours in a batch, nor on their order"""
    method = trial.half()
    together = trial.logits(method)
    advice = "decide for each clip from its own tokens: no mean, rank or draw over the batch"
    alone = torch.cat([trial.logits(method, [clip]) for clip in trial.clips])
    close(together, alone, "logits in a batch and alone", advice)
    close(together, trial.logits(method, trial.clips[::-1]).flip(0), "logits in a batch and in its reverse", advice)


def remembers_nothing(trial: Trial) -> None:
    """a pruner gives the same logits whatever it has run before"""
    pruner = trial.half().attach(trial.network)
    first = trial.run(pruner).logits
    reverse = trial.run(pruner, trial.clips[::-1]).logits.flip(0)
    alone = torch.cat([trial.run(pruner, [clip]).logits for clip in trial.clips])
    advice = "let nothing that one forward writes into the pruner be read by the next"
    close(reverse, first, "logits in the second forward and in the first", advice)
    close(alone, first, "logits clip by clip after a batch and in it", advice)
    fresh = trial.half().attach(trial.network)
    close(trial.run(fresh).logits, trial.run(pruner).logits, "logits of a new pruner and of one that has run", advice)


def is_deterministic(trial: Trial) -> None:
    """the same clips give the same logits each time, and to 1e-5 with one thread and with two"""
    method, before = trial.half(), torch.get_num_threads()
    advice = "draw from vpbench.api.clip_generator(seed, clip_id), and let no order of threads decide"
    same(torch.equal(trial.logits(method), trial.logits(method)), True, "equal logits of two forwards", advice)
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(trial.logits(method))
    finally:
        torch.set_num_threads(before)
    close(found[1], found[0], "logits with two threads and with one", advice)


def costs_what_is_counted(trial: Trial) -> None:
    """multiply-accumulates in closed form are those of torch's operator counter, to 0.1 %"""
    batch, pruner = to_batch(trial.clips[:1], "cpu"), trial.half().attach(trial.network)
    out = run(trial.network, batch, pruner)
    closed = macs_of(pruner, out, 0)
    seen = operators(lambda: trial.network(batch, pruner))
    if seen.uncounted:
        raise Broken(
            f"nobody counts {', '.join(sorted(seen.uncounted))}", "write it as a matrix product (@, linear, einsum)"
        )
    counted = seen.macs + pruner.uncounted_macs()
    if abs(counted - closed) > 1e-3 * closed:
        raise Broken(
            f"closed form {closed}, counted {counted} multiply-accumulates",
            "let Pruner.macs return those of the method's own products on one clip, from the tokens of each block",
        )


def refuses_nonsense(trial: Trial) -> None:
    """parameters out of range are refused with a reason: numbers below 0, none, not a number; unknown words"""
    plain = trial.kind()
    for field in dataclasses.fields(plain):
        for value in _nonsense(field.default):
            said = f"{field.name}={value!r}"
            advice = f"let supports return a reason for {said}, in one line, before anything runs"
            try:
                method = dataclasses.replace(plain, **{field.name: value})
                if (reason := method.supports(trial.network)) is None:
                    _answers(trial, method, said, advice)
                elif not isinstance(reason, str) or not reason or "\n" in reason:
                    raise Broken(f"{said}: supports returns {reason!r}, expected a reason in one line", advice)
            except UsageError:
                continue
            except Broken:
                raise
            except Exception as error:
                raise Broken(f"{said} raises {type(error).__name__}: {error}".partition("\n")[0], advice) from error


def _nonsense(default: object) -> tuple[object, ...]:
    if isinstance(default, bool):
        return ()
    return {int: (-1, 0), float: (-1.0, 0.0, float("nan")), str: ("no such word",)}.get(type(default), ())


def _answers(trial: Trial, method: Method, said: str, advice: str) -> None:
    pruner = method.attach(trial.network)
    if trial.network.refuses(pruner) is None and not trial.run(pruner, trial.clips[:2]).logits.isfinite().all():
        raise Broken(f"{said} gives logits that are no numbers", advice)


def says_how_often_it_waits(trial: Trial) -> None:
    """`waits` is 0 for a pruner that never asks a device for a value, and only for such a one"""
    network = trial.outline()
    pruner = trial.half().attach(network)
    sizes = network.config
    pixels = torch.empty(2, sizes.frames, sizes.height, sizes.width, 3, dtype=torch.uint8, device="meta")
    try:
        out = run(network, ClipBatch(pixels, ("a", "b"), (0, 1)), pruner)
    except (RuntimeError, NotImplementedError, UsageError) as error:
        if pruner.waits == 0:
            raise Broken(
                f"it asks for a value where there are none ({str(error).splitlines()[0][:90]})",
                "say in Pruner.waits how often a forward waits for a GPU, or decide without .item(), .tolist(), if",
            ) from error
        return
    same(pruner.waits, 0, "waits of a pruner that asks for no value", "leave Pruner.waits out")
    same(tuple(out.logits.shape), (2, sizes.classes), "logits without values", "return them for every clip")


def stands_half_precision(trial: Trial) -> None:
    """in bf16, fp16 and autocast logits are hardly further from float32 than dense ones, with the same tokens kept"""
    worse = halves.worse(trial.entry, [trial.method])
    if worse:
        (_, precision, clips), (error, allowed) = next(iter(worse.items()))
        raise Broken(
            f"{precision}, {clips} clips: logits are {error:.2g} away from float32, dense allows {allowed:.2g}",
            "compute scores and means in float32 (vpbench.api.precise)",
        )


def stands_every_context(trial: Trial) -> None:
    """inference mode, no_grad, another default dtype or device, and deterministic algorithms change no logit"""
    network = trial.network
    expected = contexts.answers(network, [trial.method])
    for name, context in contexts.CONTEXTS.items():
        with context():
            found = contexts.answers(network, [trial.method])
        advice = "name dtype and device where tensors are made, and make constants by vpbench.api.kept"
        close(found[trial.method], expected[trial.method], f"logits in {name} and in no context", advice, 0.0)
        left = contexts.answers(network, [trial.method])[trial.method]
        close(left, expected[trial.method], f"logits before and after {name}", advice, 0.0)


ON_CLIPS = promises(
    keeps_all_at_one,
    names_what_a_keep_sets,
    is_alone_in_a_batch,
    remembers_nothing,
    is_deterministic,
    costs_what_is_counted,
    refuses_nonsense,
    says_how_often_it_waits,
    stands_half_precision,
    stands_every_context,
)
