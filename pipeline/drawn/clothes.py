"""Clothes, skin and hair of one drawn person, drawn at random; left and right are dressed alike."""

from dataclasses import dataclass

import numpy as np

from pipeline.drawn.canvas import Floats, Material, Pattern

SKIN_TONES: Floats = np.array(
    [[0.97, 0.83, 0.73], [0.92, 0.72, 0.57], [0.78, 0.56, 0.40], [0.55, 0.36, 0.24],
     [0.33, 0.21, 0.15]],
    np.float32,
)  # fmt: skip
HAIR_TONES: Floats = np.array(
    [[0.08, 0.07, 0.07], [0.25, 0.15, 0.08], [0.5, 0.33, 0.15], [0.85, 0.7, 0.4], [0.6, 0.6, 0.6]],
    np.float32,
)


@dataclass(frozen=True)
class Clothes:
    """Clothes of a person; both sides alike, so that colour never distinguishes left from right."""

    shirt: Material
    trousers: Material
    shoes: Material
    skin: Material
    hair: Floats  # (3,), hair or cap
    sleeves: float  # 0 none to 2 as far as the wrist
    trouser_legs: float  # 0 none to 2 as far as the ankle
    skirt: float  # share of the thigh that a skirt covers, 0 without a skirt
    hairline: float  # how far hair leaves the face free; 2 is bald
    has_long_hair: bool


def sample_colour(rng: np.random.Generator) -> Floats:
    """Draw an RGB colour (3,) in [0, 1], greys and muted ones more often than loud ones."""
    grey = rng.uniform(0.08, 0.95)
    colour = grey + (rng.random(3) - 0.5) * rng.choice((0.15, 0.5, 1.0))
    return colour.clip(0.03, 0.97).astype(np.float32)


def sample_skin(rng: np.random.Generator) -> Floats:
    """Draw a skin colour (3,) in [0, 1] between the tones of the list."""
    place = rng.uniform(0, len(SKIN_TONES) - 1.001)
    low, share = int(place), place % 1
    tone = SKIN_TONES[low] * (1 - share) + SKIN_TONES[low + 1] * share
    return np.asarray(np.clip(tone * rng.uniform(0.92, 1.06, 3), 0, 1), np.float32)


def sample_material(rng: np.random.Generator, stature: float, plain: float = 0.5) -> Material:
    """Draw a cloth for a person of stature pixels, in one colour with probability plain."""
    patterns: tuple[Pattern, ...] = ("bands", "stripes", "checks")
    first, second = sample_colour(rng), sample_colour(rng)
    pattern = patterns[int(rng.integers(3))]
    period = float(stature * rng.uniform(0.025, 0.09))
    return Material(first, second, "plain" if rng.random() < plain else pattern, period)


def sample_clothes(rng: np.random.Generator, stature: float) -> Clothes:
    """Draw the clothes of a person of stature pixels."""
    skin = sample_skin(rng)
    shirt, trousers = sample_material(rng, stature), sample_material(rng, stature, plain=0.75)
    if rng.random() < 0.12:
        trousers = shirt  # overalls: only the shape shows where the hips are
    hair = HAIR_TONES[rng.integers(len(HAIR_TONES))] * rng.uniform(0.8, 1.2)
    if rng.random() < 0.15:
        hair = sample_colour(rng)
    wears_skirt = rng.random() < 0.18
    return Clothes(
        shirt=shirt,
        trousers=trousers,
        shoes=Material(sample_colour(rng), skin),
        skin=Material(skin, skin),
        hair=np.asarray(hair, np.float32),
        sleeves=float(rng.choice((rng.uniform(0, 0.3), rng.uniform(0.4, 0.9), 1.9))),
        trouser_legs=0.0 if wears_skirt else float(rng.choice((rng.uniform(0.3, 0.9), 1.9, 1.9))),
        skirt=float(rng.uniform(0.45, 1.0)) if wears_skirt else 0.0,
        hairline=2.0 if rng.random() < 0.08 else float(rng.uniform(0.12, 0.36)),
        has_long_hair=bool(rng.random() < 0.3),
    )
