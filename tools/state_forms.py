"""Other forms of the hidden state, trained alike from the start that was trained without one.

    python tools/state_forms.py FORM CLIP [CLIP ...] --segments 64 --steps 4000 --held-out walk,cup

    none      nothing that was kept is read
    states    as CWRNN has them; columns that read them begin small
    gated     long-lived: what is kept is, as far as a gate says, what was kept before
    matched   the products of the states of both references are read, too
    blend     no states; a mask says how far each sample moves along the difference of the references

All forms learn from the same records of the same segments (made by the shipped start), so that small differences tell;
what is told is the error of those that are held out, against what it is before anything is learned.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import click
import torch
from cwrnn_parts import blind_point, without_states
from gathered_segments import divided, gathered, sized, started
from torch import Tensor, nn

from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.parallel import thread_limit
from nvcodec.exact.convolution import Conv2d
from nvcodec.implicit.encoder.overfit import Overfit
from nvcodec.implicit.encoder.start import starting_point
from nvcodec.implicit.models.cwrnn import CWRNN

FORMS = ("none", "states", "gated", "matched", "blend")
_RATE = 1e-3
_REFRESHED, _KEY_SHARE, _STEPS = 0.3, 0.1, 6


class Formed(nn.Module):
    """A CWRNN whose states have another form. Nothing of it is made for the exact machine."""

    def __init__(self, plain: CWRNN, form: str) -> None:
        super().__init__()
        self.plain, self.form = plain, form
        self.motion = plain.motion
        widths = plain.widths
        self.keeps = Conv2d(widths.half, widths.half_state)
        self.product = Conv2d(widths.half_state, widths.half)
        self.mask = Conv2d(widths.half, 6, 3)
        for layer in (self.product, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        silent = without_states(plain)
        for name, mask in silent.items():
            weight = plain.get_parameter(f"{name}.weight")
            if form in ("none", "blend"):
                weight.register_hook(lambda grad, mask=mask: grad * mask)
            else:
                with torch.no_grad():
                    weight.add_((1 - mask) * torch.randn_like(weight) * weight.std() * 0.1)

    def forward(self, frame: Any) -> dict[str, object]:
        net = self.plain
        vectors = [given(frame) for given in net.vectors]
        dense = [net.fit_vectors(net.dense_vectors(v)) for v in vectors]
        coarse = [net.warp_quarter(s(frame), v) for s, v in zip(net.quarter_states, vectors, strict=True)]
        fine = [net.warp_half(s(frame), v) for s, v in zip(net.half_states, dense, strict=True)]
        prediction, residual, difference = net.prediction(frame), net.residual(frame), net.difference(frame)
        small = net.shrink(net.cells(net.fit_cells(prediction)))
        quarter = net.see_quarter(small, net.quarter_scale(net.residual_quarter(frame)), *coarse)
        quarter = net.leave_quarter(net.act_quarter(net.mix_quarter(net.act_quarter(net.enter_quarter(quarter)))))
        seen = net.see_samples(net.residual_scale(residual), prediction, net.difference_scale(difference))
        states = net.enter_states(net.see_states(*fine, net.fit_up(net.up(quarter))))
        if self.form == "matched":
            states = states + self.product(fine[0] * fine[1])
        conditions = net.conditions(frame)
        half = net.act_half(net.join_half(net.enter_samples(seen), states) + net.bias(conditions))
        half = net.act_half(net.second_half(net.act_half(net.first_half(half))))
        correction = net.correct(half * net.gate(conditions))
        if self.form == "blend":
            correction = correction + torch.tanh(self.mask(half)) * difference
        kept = net.squash_half(net.keep_half(half))
        if self.form == "gated":
            kept = kept + torch.sigmoid(self.keeps(half)) * (0.5 * (fine[0] + fine[1]) - kept)
        return {
            "samples": net.samples(prediction + residual + correction),
            "states": (net.half_state(kept), net.quarter_state(net.squash_quarter(net.keep_quarter(quarter)))),
        }


def error_of(plain: CWRNN, segments: list[Overfit]) -> float:
    total = 0.0
    for segment in segments:
        sized(plain, segment)
        segment.states, segment.changes = {}, {}
        total += segment.refresh()
    return total / len(segments)


@click.command()
@click.argument("form", type=click.Choice(FORMS))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--segments", default=64)
@click.option("--steps", default=4000)
@click.option("--held-out", default="walk,citynight,cup,s_layer_3", help="Clips that are only measured.")
@click.option("--seed", default=0)
def main(form: str, clips: tuple[Path, ...], segments: int, steps: int, held_out: str, seed: int) -> None:
    keep_freed_memory()
    with thread_limit(1):
        torch.set_num_threads(1)
        maker, _ = started(starting_point("cwrnn16"))
        learned, only_measured = divided(clips, held_out)
        measured = list(gathered(maker, only_measured, 12, seed, held_out=True))
        pool = list(gathered(maker, learned, segments, seed))
        torch.manual_seed(seed)
        random.seed(seed)
        plain, _ = started(blind_point())
        for segment in measured:
            segment.synthesis.module = plain
        first = error_of(plain, measured)
        module = Formed(plain, form)
        for segment in [*pool, *measured]:
            segment.synthesis.module = module
        learning: list[Tensor] = [p for name, p in module.named_parameters() if "motion." not in name]
        optimiser, done = torch.optim.Adam(learning, lr=_RATE, betas=(0.9, 0.99)), 0
        while done < steps:
            segment = random.choice(pool)
            sized(plain, segment)
            if not segment.states or random.random() < _REFRESHED:
                segment.refresh()
            for group in optimiser.param_groups:
                group["lr"] = _RATE * min(1, done / 100) * (1 - done / steps) ** 0.8
            for _ in range(_STEPS):
                number = 0 if random.random() < _KEY_SHARE else random.randrange(len(segment.records))
                segment.step(optimiser, number)
                done += 1
        click.echo(f"{form}: {100 * (error_of(plain, measured) / first - 1):+.2f} % of the errors held out")


if __name__ == "__main__":
    main()
