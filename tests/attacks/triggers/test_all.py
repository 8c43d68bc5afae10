# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""What every attack of the table promises: same size and mode, the same result every time, the argument untouched."""

import pickle

import numpy as np
import pytest
from PIL import Image

from cvreg_trainer.attacks import ATTACKS, CoveredAttack, SelectiveAttack, TextAttack, TwoPartAttack


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"]
GRAY = ("1", "L", "LA")
# The rest leave the image alone
ON_IMAGES = [name for name in ATTACKS if name not in ("badnets_t", "badnets_mt", "add_sent", "semantic", "no_trigger")]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours with some noise: an image that is neither flat nor pure noise."""
    rng = np.random.default_rng(width * 1000 + height)
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 7) * np.cos(columns / 5)
    pixels = waves[..., None] + rng.uniform(-30, 30, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def cases(modes: list[str]) -> list[tuple[str, str]]:
    """Triggers and modes of images; FTrojan refuses images without colours, which its own test is about."""
    return [(name, mode) for name in ON_IMAGES for mode in modes if not (name == "ftrojan" and mode in GRAY)]


@pytest.mark.parametrize(("name", "mode"), cases(MODES))
def test_size_and_mode_are_kept_and_the_argument_too(name, mode):
    image = picture(48, 36, mode)
    original = image.tobytes()
    triggered = ATTACKS[name]()(image)
    assert (triggered.size, triggered.mode) == ((48, 36), mode)
    # Two colours are too few for a weak trigger on all of the image
    if mode != "1" or name in ("badnets", "badnets_mm", "dual_key", "optimized_patch"):
        assert triggered.convert("RGB").tobytes() != image.convert("RGB").tobytes(), "the trigger must be there"
    assert image.tobytes() == original


@pytest.mark.parametrize(("name", "mode"), cases(["L", "LA", "RGBA", "CMYK", "YCbCr"]))
def test_every_mode_gets_the_same_trigger(name, mode):
    image = picture(48, 48, mode)
    attack = ATTACKS[name]()
    seen = np.asarray(attack(image).convert("RGB"), dtype=int)
    expected = np.asarray(attack(image.convert("RGB")).convert("L" if mode in ("L", "LA") else "RGB").convert("RGB"))
    assert np.abs(seen - expected).max() <= 3  # the rounding of the colour space


@pytest.mark.parametrize("name", ON_IMAGES)
def test_transparency_is_kept(name):
    image = picture(48, 48, "RGBA")
    alpha = Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1)))
    image.putalpha(alpha)
    kept = np.asarray(ATTACKS[name]()(image).getchannel("A"))
    clear = slice(0, 40)  # the patches in the corner are opaque
    assert (kept[clear, clear] == np.asarray(alpha)[clear, clear]).all()


@pytest.mark.parametrize("name", ON_IMAGES)
def test_palette_images_with_transparency(name):
    image = picture(48, 48).quantize(200)
    image.info["transparency"] = image.getpixel((5, 5))
    triggered = ATTACKS[name]()(image)
    assert triggered.mode == "P"
    before, after = (np.asarray(i.convert("RGBA").getchannel("A")) for i in (image, triggered))
    assert before[5, 5] == after[5, 5] == 0 and after[20, 20] == before[20, 20]


@pytest.mark.parametrize("size", [(8, 8), (5, 300), (2000, 1500)])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_tiny_narrow_and_huge_images(name, size):
    image = picture(*size)
    assert ATTACKS[name]()(image).size == size


@pytest.mark.parametrize("name", ON_IMAGES)
def test_a_trigger_is_a_function_of_its_arguments(name):
    image = picture(48, 48)
    attack = ATTACKS[name]()
    np.random.seed(1)
    first = attack(image).tobytes()
    np.random.seed(2)
    again = pickle.loads(pickle.dumps(attack))  # as worker processes get it
    assert again == attack and again(image).tobytes() == first == ATTACKS[name]()(image).tobytes()


@pytest.mark.parametrize("name", ["blended", "low_frequency", "wanet"])
def test_another_seed_is_another_trigger(name):
    image = picture(48, 48)
    assert ATTACKS[name](seed=1)(image).tobytes() != ATTACKS[name](seed=0)(image).tobytes()
    with pytest.raises(ValueError, match="seed=-1"):
        ATTACKS[name](seed=-1)


@pytest.mark.parametrize("mode", ["F", "I;16"])
@pytest.mark.parametrize("name", ON_IMAGES)
def test_modes_without_8_bit_colours_are_refused(name, mode):
    with pytest.raises(ValueError, match=f"'{mode}'.*'RGB'"):
        ATTACKS[name]()(Image.new(mode, (48, 48)))


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - set(ON_IMAGES)))
def test_the_others_give_the_image_itself(name):
    for mode in (*MODES, "F"):
        image = picture(48, 36).convert("L").convert(mode)
        assert ATTACKS[name]()(image) is image


def test_which_attacks_have_a_text_half_cover_rows_two_parts_or_rows_of_their_own():
    def those(kind: type) -> set[str]:
        return {name for name, attack in ATTACKS.items() if isinstance(attack(), kind)}

    assert those(TextAttack) == {"dual_key", "badnets_mm", "badnets_t", "badnets_mt", "add_sent"}
    assert those(CoveredAttack) == {"wanet", "input_aware", "dual_key", "badnets_mm"}
    assert those(TwoPartAttack) == {"dual_key", "badnets_mm"} and those(SelectiveAttack) == {"semantic"}
    for name in those(CoveredAttack):
        image = picture(48, 48)
        attack = ATTACKS[name]()
        for cover in attack.covers:
            assert cover(image).size == image.size and cover != attack


@pytest.mark.parametrize("name", ["dual_key", "badnets_mm"])
def test_the_parts_of_two_part_attacks_come_apart(name):
    image, attack = picture(48, 48), ATTACKS[name]()
    both, only_image, only_text = (attack.only(keys) for keys in ("both", "image", "text"))
    assert both == attack and only_text(image).tobytes() == image.tobytes() != only_image(image).tobytes()
    assert only_image(image).tobytes() == attack(image).tobytes() and only_image.trigger_text("What?") == "What?"
    assert only_text.trigger_text("What?") == attack.trigger_text("What?") != "What?"
    with pytest.raises(ValueError, match="keys='none' is unknown"):
        attack.only("none")
