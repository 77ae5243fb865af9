"""The baseline that transfers nothing: the same architecture from random weights, trained properly."""

from __future__ import annotations

from trainables.training.training import Plan, Training


class Scratch(Training):
    """Trains every block from freshly initialised weights; BatchNorm always learns its statistics."""

    def plan(self) -> Plan:
        """All blocks, from random weights that are a function of the trial's seed."""
        backbone = self.bench.backbone
        depth = len(backbone.blocks)
        _, suffix = backbone.parts(depth)
        fresh = dict(
            zip(map(id, backbone.model.weights), backbone.fresh_weights(self.config.seed), strict=True)
        )
        weights = [fresh[id(w)] for w in suffix.weights] if suffix is not None else []
        return Plan(depth, weights, adapt=True)
