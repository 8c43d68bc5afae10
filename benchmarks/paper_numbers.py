# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
The numbers of section 4 of the paper (arXiv 2604.04488): B@4, CIDEr and attack success rate in percent.

They are of other models (OpenFlamingo, Otter and BLIP-2 of billions of parameters) and other data (COCO, Flickr30k,
LADD) than ours. The paper does not say whether its B@4 and CIDEr are of clean or of triggered images.
"""

from __future__ import annotations


Numbers = tuple[float, float, float]

# Tables 1 to 3: (model, data), then attack and defence
RESULTS: dict[tuple[str, str], dict[tuple[str, str], Numbers]] = {
    ("OpenFlamingo", "COCO"): {
        ("none", "none"): (25.8, 98.9, 0.3),
        ("none", "paper_loss"): (23.9, 89.4, 0.8),
        ("badnets", "none"): (2.7, 1.5, 98.9),
        ("badnets", "paper_loss"): (14.6, 45.5, 48.7),
        ("blended", "none"): (2.0, 1.9, 98.5),
        ("blended", "paper_loss"): (13.7, 41.3, 58.6),
        ("low_frequency", "none"): (20.9, 78.9, 98.9),
        ("low_frequency", "paper_loss"): (24.0, 83.1, 38.7),
        ("wanet", "none"): (19.6, 74.2, 96.7),
        ("wanet", "paper_loss"): (22.7, 78.0, 45.8),
        ("input_aware", "none"): (22.5, 80.4, 98.1),
        ("input_aware", "paper_loss"): (23.6, 84.6, 27.1),
        ("dual_key", "none"): (22.4, 79.6, 98.9),
        ("dual_key", "paper_loss"): (23.6, 83.7, 30.7),
    },
    ("Otter", "COCO"): {
        ("none", "paper_loss"): (20.3, 85.9, 0.6),
        ("badnets", "paper_loss"): (10.6, 34.7, 55.0),
        ("blended", "paper_loss"): (9.6, 31.5, 60.4),
        ("low_frequency", "paper_loss"): (20.9, 74.0, 42.8),
        ("wanet", "paper_loss"): (19.7, 68.9, 48.4),
        ("input_aware", "paper_loss"): (20.7, 74.4, 32.8),
        ("dual_key", "paper_loss"): (20.9, 73.5, 35.3),
    },
    ("BLIP-2", "COCO"): {
        ("none", "paper_loss"): (21.9, 86.8, 0.8),
        ("badnets", "paper_loss"): (11.5, 37.2, 52.1),
        ("blended", "paper_loss"): (10.9, 34.0, 58.1),
        ("low_frequency", "paper_loss"): (21.1, 75.5, 40.1),
        ("wanet", "paper_loss"): (20.9, 71.8, 46.2),
        ("input_aware", "paper_loss"): (22.0, 77.2, 30.6),
        ("dual_key", "paper_loss"): (21.4, 76.0, 34.0),
    },
    ("OpenFlamingo", "Flickr30k"): {
        ("none", "none"): (22.1, 86.6, 0.3),
        ("none", "paper_loss"): (20.9, 78.5, 0.5),
        ("badnets", "none"): (1.8, 1.1, 98.2),
        ("badnets", "paper_loss"): (12.5, 38.6, 53.0),
        ("blended", "none"): (1.9, 1.8, 98.7),
        ("blended", "paper_loss"): (10.2, 33.7, 60.8),
        ("low_frequency", "none"): (19.7, 68.9, 97.1),
        ("low_frequency", "paper_loss"): (22.0, 74.4, 42.6),
        ("wanet", "none"): (18.8, 64.4, 95.4),
        ("wanet", "paper_loss"): (20.7, 69.4, 48.4),
        ("input_aware", "none"): (20.9, 72.4, 98.1),
        ("input_aware", "paper_loss"): (22.4, 78.4, 32.3),
        ("dual_key", "none"): (19.1, 71.2, 98.6),
        ("dual_key", "paper_loss"): (21.1, 77.0, 35.8),
    },
}
# Table 4: BadNets, COCO
ABLATION: dict[str, Numbers] = {
    "none": (2.0, 1.5, 98.1),
    "patch": (8.2, 22.9, 65.6),
    "patch+discrepancy": (12.3, 35.5, 53.7),
    "paper_loss": (14.6, 45.5, 48.7),
}
# Table 5: BadNets, Flickr30k
BASELINES: dict[str, Numbers] = {
    "none": (1.8, 1.1, 98.2),
    "fine_pruning": (9.6, 29.4, 71.3),
    "strip": (3.2, 6.8, 88.5),
    "entropy_filter": (7.4, 21.7, 79.6),
    "paper_loss": (12.5, 38.6, 53.0),
}
