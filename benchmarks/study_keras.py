"""The study in Keras 3 with `keras.distillation.Distiller`, on the backend that `$KERAS_BACKEND` names.

The Distiller wants a teacher whose output has the student's shape, and softens it itself. So the ensemble's output is
T log(mean of the members' softened probabilities): divided by T, its softmax is that mean.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import study_peer
from study_peer import ALPHA, BATCH, RATE, TEMPERATURE, VALIDATION_BATCH, Arrays


def network(hidden: Sequence[int]) -> Any:
    """784-hidden-10 with ReLU; answers logits. Initial weights are drawn as torch draws them."""
    import keras

    layers, width = [keras.Input((784,))], 784
    for size in (*hidden, 10):
        weights = keras.initializers.VarianceScaling(scale=1 / 3, mode="fan_in", distribution="uniform")
        biases = keras.initializers.RandomUniform(-(width**-0.5), width**-0.5)
        activation = "relu" if len(layers) <= len(hidden) else None
        layers.append(keras.layers.Dense(size, activation, kernel_initializer=weights, bias_initializer=biases))
        width = size
    return keras.Sequential(layers)


def ensemble(members: Sequence[Any], temperature: float) -> Any:
    """A model whose softmax at `temperature` is the mean of the members' probabilities at that temperature."""
    import keras

    inputs = keras.Input((784,))
    softened = [keras.ops.softmax(member(inputs) / temperature) for member in members]
    return keras.Model(inputs, temperature * keras.ops.log(keras.layers.Average()(softened)))


def distillation() -> Any:
    """T^2 KL(teacher || student) of probabilities at T.

    Keras 3.15 softens only for an instance of KLDivergence. For its own default, the name "kl_divergence", it takes the
    divergence of the logits divided by T, clipped to [1e-7, 1].
    """
    import keras

    return keras.distillation.LogitsDistillation(temperature=TEMPERATURE, loss=keras.losses.KLDivergence())


class Keras:
    """`task`: `steps` per execution, `feed` ("arrays" or "dataset"), `joint` (the members as one model), `jit`."""

    def __init__(self, task: dict[str, Any]) -> None:
        import keras

        if keras.backend.backend() == "torch":
            import torch

            torch.set_num_threads(task["threads"])
        self.keras, self.task, self.epochs = keras, task, []
        self.arrays = Arrays.load(task["data"])

    def compile(self, model: Any, outputs: int = 1) -> None:
        """Adam with torch's epsilon, cross-entropy from logits; as `outputs` equal outputs need it."""
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(
            optimizer=self.keras.optimizers.Adam(RATE, epsilon=1e-8),
            loss=loss if outputs == 1 else [loss] * outputs,
            metrics=["accuracy"] if outputs == 1 else [["accuracy"]] * outputs,
            steps_per_execution=self.task["steps"],
            jit_compile=self.task["jit"],
        )

    def fit(self, model: Any, outputs: int = 1) -> None:
        """`Model.fit` with validation data; of a model with several outputs all learn the same labels."""
        clock = _clock(self.keras)

        def labels(y: Any) -> Any:
            return y if outputs == 1 else (y,) * outputs

        (x, y), (vx, vy) = self.arrays.train, self.arrays.validation
        data: dict[str, Any] = {"x": x, "y": labels(y), "batch_size": BATCH, "shuffle": True}
        if self.task["feed"] == "dataset":
            data = {"x": _dataset(self.keras, x, y, labels=labels)}
        model.fit(
            **data,
            epochs=self.task["epochs"],
            validation_data=(vx, labels(vy)),
            validation_batch_size=VALIDATION_BATCH,
            callbacks=[clock],
            verbose=0,
        )
        self.epochs.append(clock.seconds)

    def hard(self, hidden: Sequence[int], seed: int, count: int) -> list[Any]:
        """Networks trained on the labels, one by one or as one model with `count` outputs."""
        models = []
        for member in range(count):
            self.keras.utils.set_random_seed(100 * seed + member)
            models.append(network(hidden))
            if count == 1 or not self.task["joint"]:
                self.compile(models[-1])
                self.fit(models[-1])
        if count > 1 and self.task["joint"]:
            inputs = self.keras.Input((784,))
            whole = self.keras.Model(inputs, [model(inputs) for model in models])
            self.compile(whole, count)
            self.fit(whole, count)
        return models

    def soft(self, teachers: list[Any], seed: int) -> Any:
        """alpha * CE + (1 - alpha) * T^2 * KL(mean of the teachers' softened probabilities || student)."""
        self.keras.utils.set_random_seed(100 * seed)
        distiller = self.keras.distillation.Distiller(
            teacher=teachers[0] if len(teachers) == 1 else ensemble(teachers, TEMPERATURE),
            student=network(study_peer.SMALL),
            distillation_losses=distillation(),
            student_loss_weight=ALPHA,
        )
        self.compile(distiller)
        self.fit(distiller)
        return distiller.student

    def accuracy(self, models: list[Any]) -> float:
        """Of the mean of the models' probabilities, on test data."""
        model = models[0] if len(models) == 1 else ensemble(models, 1.0)
        if not model.compiled:
            self.compile(model)
        x, y = self.arrays.test
        return float(model.evaluate(x, y, batch_size=VALIDATION_BATCH, verbose=0, return_dict=True)["accuracy"])


def _clock(keras: Any) -> Any:
    """A callback that keeps the seconds of every epoch, validation included."""

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.seconds.append(time.perf_counter() - self.began)

    return Clock()


def _dataset(keras: Any, inputs: Any, targets: Any, *, labels: Any) -> Any:
    """A PyDataset of shuffled batches."""
    import numpy as np

    class Shuffled(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.on_epoch_end()

        def __len__(self) -> int:
            return math.ceil(len(inputs) / BATCH)

        def __getitem__(self, batch: int) -> Any:
            rows = self.order[batch * BATCH : (batch + 1) * BATCH]
            return inputs[rows], labels(targets[rows])

        def on_epoch_end(self) -> None:
            self.order = np.random.permutation(len(inputs))

    return Shuffled()


if __name__ == "__main__":
    study_peer.main(Keras)
