"""A pair of pods beside pods that attack the switch: does the pair get its share of the switch's time, and does it lose frames?

The first pod of the pair sends to the second. Pair and aggressors are driven by one thread, so that the pair always has frames
in its ring, whatever the machine does; the switch has the other core. Nothing is judged by the clock, but by the switch's own
count of the time that its poller worked, and by the frames that it took from the pair's ring:

- alone: the aggressors are connected and silent. With F frames of the pair in T seconds of the poller's work, a frame costs
  c = T / F.
- beside n aggressors that always want something, the pair's fair share of the poller's time T is T / (n + 1), which pays for
  T / (n + 1) / c frames. The row shows the frames that the pair got, by those that its share paid for when it was alone: at
  least 0.95. More than 1: the aggressors did not use their shares.
- offered 70 % of what that share pays for, the pair loses nothing: each frame arrives while the attack goes on.

Each figure is from runs of its own, preceded by one alone; the worst of all counts.
"""

import dataclasses

from contenders import our_switch
from guests import measured
from measure import Figures, blocks, finish, header, preferred, row

ROUNDS = blocks(5)
SECONDS = 1
LOAD = 0.7       # of the fair share
BYSTANDERS = 64  # beside a broadcast
LEAST = ">= 0.95"


@dataclasses.dataclass
class Aggressor:
    name: str
    senders: int = 1
    bystanders: int = 0
    options: dict = dataclasses.field(default_factory=dict)  # of the generator


AGGRESSORS = [
    Aggressor("unicast, 1 port", options={"kind": "flood"}),
    Aggressor("unicast, 4 ports", 4, options={"kind": "flood"}),
    Aggressor("to a port that takes nothing, 4 ports", 4, options={"kind": "deaf"}),
    Aggressor(f"broadcast, {BYSTANDERS} bystanders", bystanders=BYSTANDERS, options={"kind": "broadcast"}),
    Aggressor(f"unknown addresses, {BYSTANDERS} bystanders", bystanders=BYSTANDERS, options={"kind": "unknown"}),
    Aggressor("ever other senders", options={"kind": "addresses"}),
    Aggressor("chains of 256 pieces", options={"kind": "flood", "pieces": 256, "ring": 1024, "size": 516}),
    Aggressor("tables of 256 pieces", options={"kind": "flood", "pieces": 256, "ring": 256, "size": 516,
                                               "flags": ("indirect",)}),
    Aggressor("chains of 256 pieces, packed", options={"kind": "flood", "pieces": 256, "ring": 1024, "size": 516,
                                                       "flags": ("packed",)}),
    Aggressor("empty receive buffers", options={"kind": "flood", "too_short": 0}),
    Aggressor("receive buffers of 13 bytes", options={"kind": "flood", "too_short": 13, "size": 516,
                                                      "flags": ("mergeable",)}),
    Aggressor("notifications only, 4 ports", 4, options={"kind": "kicks"}),
    Aggressor("a million watchers", options={"kind": "watchers", "flags": ("calls",)}),
    Aggressor("holes in its memory", options={"kind": "holes"})]


@dataclasses.dataclass
class Run:
    busy: float  # seconds of the poller's work
    taken: int   # frames that the switch took from the pair's ring
    pair: dict   # the pair's own counts


def run(aggressor, silent=False, rate=None):
    """One run, with a switch of its own, since it may close an aggressor's port. In its ports from 0 on: the pair, the attacked
    one, the aggressors, the bystanders."""
    options = dict(aggressor.options)
    if silent:
        options["kind"] = "none"
    if rate:
        options["rate"] = rate
    guests = 1 + aggressor.senders
    flags = ("pair", *options.pop("flags", ()))
    with our_switch(2 + guests + aggressor.bystanders) as switch, switch.running():
        def mark(_):
            stats = switch.control.call("stats")
            return stats["busy_ns"][0] / 1e9, stats["ports"][0]["tx_packets"]
        result, (before, after) = measured(switch.sockets, "attack", mark, flags=flags, guests=guests,
                                           idle=aggressor.bystanders, seconds=SECONDS, **options)
    return Run(after[0] - before[0], after[1] - before[1], result["pair"])


def measure(aggressor):
    """(frames by those that the fair share pays for, frames lost at 70 % of that, the rest of the pair's counts)"""
    alone = run(aggressor, silent=True)
    cost = alone.busy / alone.taken
    share = 1 / (aggressor.senders + 1)
    beside = run(aggressor)
    little = run(aggressor, rate=LOAD * share / cost)
    lost = little.pair["sent"] - little.pair["received"]
    return beside.taken / (beside.busy * share / cost), lost, little.pair["p50_us"]


def main():
    header("A pair of pods beside aggressors")
    for aggressor in AGGRESSORS:
        runs = [measure(aggressor) for _ in range(ROUNDS)]
        shares, lost, latency = zip(*runs)
        # In every run: the worst one counts.
        row(f"{aggressor.name}: frames / share", Figures([min(shares)], "", 2), target=LEAST,
            limit=f"all: {Figures(shares, '', 2)}")
        row(f"{aggressor.name}: lost at 70 %", Figures([max(lost)], "frames", 0), target="<= 0",
            limit=f"p50 {Figures(latency, 'us')}")


with preferred():
    main()
finish()
