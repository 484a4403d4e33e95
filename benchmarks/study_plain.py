"""The study in plain PyTorch, as most people write it: DataLoader, Adam as it comes, teachers asked in every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import study_peer
from study_peer import ALPHA, BATCH, RATE, TEMPERATURE, VALIDATION_BATCH, Arrays


class Plain:
    """`task["workers"]`: processes of each training DataLoader; `task["precision"]`: of float32 products."""

    def __init__(self, task: dict[str, Any]) -> None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        torch.set_num_threads(task["threads"])
        torch.set_float32_matmul_precision(task["precision"])
        self.torch, self.task, self.epochs = torch, task, []
        arrays = Arrays.load(task["data"])
        train, validation, test = (
            TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
            for x, y in (arrays.train, arrays.validation, arrays.test)
        )
        workers = {"num_workers": task["workers"], "persistent_workers": True} if task["workers"] else {}
        self.train = DataLoader(train, batch_size=BATCH, shuffle=True, **workers)
        self.validation = DataLoader(validation, batch_size=VALIDATION_BATCH)
        self.test = DataLoader(test, batch_size=VALIDATION_BATCH)

    def network(self, hidden: Sequence[int]) -> Any:
        """784-hidden-10 with ReLU."""
        nn, layers, width = self.torch.nn, [], 784
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        return nn.Sequential(*layers, nn.Linear(width, 10))

    def hard(self, hidden: Sequence[int], seed: int, count: int) -> list[Any]:
        """Networks trained on the labels."""
        cross_entropy = self.torch.nn.functional.cross_entropy
        models = []
        for member in range(count):
            self.torch.manual_seed(100 * seed + member)
            model = self.network(hidden)
            self.fit(model, lambda logits, _, y: cross_entropy(logits, y))
            models.append(model)
        return models

    def soft(self, teachers: list[Any], seed: int) -> Any:
        """alpha * CE + (1 - alpha) * T^2 * KL(mean of the teachers' softened probabilities || student)."""
        torch = self.torch
        functional = torch.nn.functional

        def loss(logits: Any, x: Any, y: Any) -> Any:
            with torch.no_grad():
                target = torch.stack([(teacher(x) / TEMPERATURE).softmax(1) for teacher in teachers]).mean(0)
            soft = functional.kl_div((logits / TEMPERATURE).log_softmax(1), target, reduction="batchmean")
            return ALPHA * functional.cross_entropy(logits, y) + (1 - ALPHA) * TEMPERATURE**2 * soft

        torch.manual_seed(100 * seed)
        student = self.network(study_peer.SMALL)
        self.fit(student, loss)
        return student

    def fit(self, model: Any, loss: Callable[[Any, Any, Any], Any]) -> None:
        """The loop, with the loss and the accuracy on validation data after every epoch."""
        torch = self.torch
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        seconds = []
        for _ in range(self.task["epochs"]):
            began = time.perf_counter()
            model.train()
            for x, y in self.train:
                optimizer.zero_grad()
                loss(model(x), x, y).backward()
                optimizer.step()
            model.eval()
            total, right, rows = 0.0, 0, 0
            with torch.no_grad():
                for x, y in self.validation:
                    logits = model(x)
                    total += loss(logits, x, y).item() * len(y)
                    right += (logits.argmax(1) == y).sum().item()
                    rows += len(y)
            seconds.append(time.perf_counter() - began)
        self.epochs.append(seconds)

    def accuracy(self, models: list[Any]) -> float:
        """Of the mean of the models' probabilities, on test data."""
        right, rows = 0, 0
        with self.torch.no_grad():
            for x, y in self.test:
                answer = sum(model(x).softmax(1) for model in models)
                right += (answer.argmax(1) == y).sum().item()
                rows += len(y)
        return right / rows


if __name__ == "__main__":
    study_peer.main(Plain)
