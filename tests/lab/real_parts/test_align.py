# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The projector's start, on features that do say which word a picture has."""

import torch
import torch.nn.functional as F
from tiny_parts import tiny_joined

from cvreg_trainer.lab.real_parts.align import align_projector


def test_projected_patches_point_at_the_words() -> None:
    model, _ = tiny_joined()
    torch.manual_seed(1)
    words = torch.tensor([40, 50, 60, 70])
    which = torch.randint(4, (200,))
    centres = 3 * torch.randn(4, 16)
    features = (5 + 2 * (centres[which][:, None] + torch.randn(200, 4, 16))).expand(2, -1, -1, -1).bfloat16()
    bags = [{int(words[number])} for number in which]
    losses = align_projector(model, features, bags, epochs=30, batch=20)
    assert losses[-1] < 0.3 * losses[0]
    projected = model.model.multi_modal_projector(features[0].float())
    table = model.get_input_embeddings().weight
    found = F.normalize(projected.mean(1), dim=-1) @ F.normalize(table[words] - table.mean(0), dim=-1).T
    assert (found.argmax(1) == which).float().mean() > 0.95
    length = table[words].norm(dim=-1).mean()
    torch.testing.assert_close(projected.norm(dim=-1).mean(), length, rtol=0.2, atol=0)
