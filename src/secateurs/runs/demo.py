"""The job of `secateurs demo`: embedded data, two ways to prune, about a minute."""

from dataclasses import replace

from secateurs.methods.task import Target
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.runs.recipe import Cut, Recipe

_RECOVER = replace(FINETUNE, epochs=8, lr=0.02)

DEMO = Recipe(
    model="digits_cnn",
    data="digits",
    cuts=(
        Cut("magnitude", Target("density", 0.1), {"granularity": "element"}, _RECOVER),
        Cut("magnitude", Target("macs", 0.4), {"granularity": "out_channel"}, _RECOVER),
    ),
    dense=Trainer(epochs=20, lr=0.1, schedule="one_cycle"),
    batch_size=64,
)
