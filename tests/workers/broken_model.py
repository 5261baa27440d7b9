"""Small broken trainings, each with the remedies of data, model, objective and precision that repair it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler, TensorDataset, WeightedRandomSampler

from remedy.spaces.training import Training


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def halves(inputs: Tensor, targets: Tensor) -> tuple[Any, Any]:
    middle = len(inputs) * 2 // 3
    return TensorDataset(inputs[:middle], targets[:middle]), TensorDataset(inputs[middle:], targets[middle:])


def blobs(classes: int = 4, samples: int = 384, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Well separated classes in eight dimensions."""
    centres = torch.randn(classes, 8, generator=drawn(1)) * 1.5
    labels = torch.arange(samples) % classes
    return centres[labels] + spread * torch.randn(samples, 8, generator=drawn(2)), labels


def curve(samples: int = 384) -> tuple[Tensor, Tensor]:
    """Numbers that a small net learns well: r2 above 0.95 within 200 steps."""
    inputs = torch.randn(samples, 4, generator=drawn(3))
    return inputs, (inputs[:, :1] + 0.5 * inputs[:, 1:2] * inputs[:, 2:3]).tanh() + 0.3 * inputs[:, 3:]


def rings(samples: int = 384) -> tuple[Tensor, Tensor]:
    """A class within another: no line parts them."""
    angle = torch.rand(samples, generator=drawn(4)) * 2 * math.pi
    labels = torch.arange(samples) % 2
    radius = 1.0 + labels + 0.15 * torch.randn(samples, generator=drawn(5))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), labels


def stack(
    *last: nn.Module,
    depth: int = 2,
    width: int = 24,
    activation: Callable[[], nn.Module] = nn.ReLU,
    inputs: int = 8,
    outputs: int = 4,
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for place in range(depth):
            layers += [nn.Linear(inputs if place == 0 else width, width), activation()]
        return nn.Sequential(*layers, nn.Linear(width, outputs), *last)

    return build


def changed(build: Callable[[], nn.Module], change: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def built() -> nn.Module:
        model = build()
        with torch.no_grad():
            change(model)
        return model

    return built


def linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def adam(lr: float = 0.01, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=lr, **options)


def sgd(lr: float = 0.1, momentum: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=momentum)


def training(data: tuple[Tensor, Tensor] | None = None, **own: Any) -> Training:
    sets = halves(*(blobs() if data is None else data))
    given = {
        "model": stack(), "data": lambda: sets, "loss": nn.CrossEntropyLoss(), "optimizer": adam(), "batch_size": 32,
        "steps": 80, "goal": 0.9, "device": "cpu", **own,
    }  # fmt: skip
    return Training(**given)


def numbers(data: tuple[Tensor, Tensor] | None = None, **own: Any) -> Training:
    given = {
        "model": stack(inputs=4, outputs=1, activation=nn.Tanh), "loss": nn.MSELoss(), "metric": "r2", "goal": 0.85,
        "steps": 100, **own,
    }  # fmt: skip
    return training(data if data is not None else curve(), **given)


# ---------------------------------------------------------------- inputs


def far_inputs() -> Training:
    inputs, labels = blobs()
    return training((inputs * 30 + 3000, labels), optimizer=sgd(0.2))


def long_tails() -> Training:
    """Every feature has the sign that matters, and a size over many orders of magnitude."""
    inputs, labels = blobs(samples=384)
    sizes = torch.exp(3 * torch.randn(inputs.shape, generator=drawn(6)))
    return training((inputs.sign() * inputs.abs() ** 1.0 * sizes, labels), optimizer=adam(0.003), goal=0.75)


def outliers() -> Training:
    """One sample in twenty has a feature far out."""
    inputs, labels = blobs()
    hit = torch.rand(inputs.shape, generator=drawn(7)) < 0.03
    return training((torch.where(hit, 1e4 * inputs.sign(), inputs), labels), optimizer=sgd(0.1), goal=0.75)


def holes() -> Training:
    inputs, labels = blobs()
    return training((torch.where(torch.rand(inputs.shape, generator=drawn(8)) < 0.02, torch.nan, inputs), labels))


# ---------------------------------------------------------------- targets


def far_targets() -> Training:
    inputs, targets = curve()
    return numbers((inputs, 2000 + 300 * targets))


def targets_with_a_graph() -> Training:
    def data() -> tuple[Any, Any]:
        inputs, targets = curve()
        teacher = nn.Linear(1, 1)
        nn.init.ones_(teacher.weight)
        return halves(inputs, teacher(targets))

    return replace(numbers(), data=data)


# ---------------------------------------------------------------- batches


def in_class_order() -> Training:
    inputs, labels = blobs()
    order = torch.cat([labels[:256].argsort(), torch.arange(256, 384)])
    return training(
        (inputs[order], labels[order]), sampler=SequentialSampler, optimizer=adam(0.1), batch_size=8, steps=96
    )


def batches_of_one() -> Training:
    inputs, labels = blobs(spread=1.2)
    return training((inputs, labels), batch_size=1, optimizer=adam(0.1), goal=0.85)


def one_batch_an_epoch() -> Training:
    return training(batch_size=256, steps=None, epochs=6, optimizer=adam(0.003))


def too_short() -> Training:
    return training(steps=7, optimizer=adam(0.003))


def one_class_drawn() -> Training:
    def sampler(train: TensorDataset) -> WeightedRandomSampler:
        labels = train.tensors[1]
        return WeightedRandomSampler(torch.where(labels == 0, 1.0, 1e-4).tolist(), len(labels))

    return training(sampler=sampler)


def rare_class() -> Training:
    inputs, labels = blobs(2, 600, spread=1.5)
    kept = (labels == 0) | (torch.rand(600, generator=drawn(9)) < 0.02) | (torch.arange(600) >= 400)
    keep = kept.nonzero().flatten()
    train = TensorDataset(inputs[keep[keep < 400]], labels[keep[keep < 400]])
    held = TensorDataset(inputs[400:], labels[400:])
    made = training(model=stack(outputs=2), metric="balanced_accuracy", goal=0.8, steps=40, optimizer=sgd(0.05))
    return replace(made, data=lambda: (train, held))


# ---------------------------------------------------------------- architecture


def too_narrow() -> Training:
    return training(rings(), model=stack(depth=1, width=2, inputs=2, outputs=2), optimizer=adam(0.03), steps=200)


def too_shallow() -> Training:
    return training(
        spirals(), model=stack(depth=1, width=9, inputs=2, outputs=3), optimizer=adam(0.02), steps=250, goal=0.92
    )


def spirals(samples: int = 384) -> tuple[Tensor, Tensor]:
    labels = torch.arange(samples) % 3
    along = torch.rand(samples, generator=drawn(10))
    angle = 5 * along + labels * 2 * math.pi / 3 + 0.1 * torch.randn(samples, generator=drawn(11))
    return 2 * torch.stack([along * angle.cos(), along * angle.sin()], 1), labels


def too_wide() -> Training:
    """The step that a narrow net stands throws a wide one into the flat part of a clipped loss."""
    inputs, labels = blobs()
    return training((inputs * 4, labels), model=stack(nn.Softmax(dim=1), width=256), loss=clipped, optimizer=adam(0.06))


def deep_sigmoids() -> Training:
    return training(model=stack(depth=5, activation=nn.Sigmoid, width=24), optimizer=adam(0.003))


def too_deep() -> Training:
    return training(model=stack(depth=16, width=16), optimizer=adam(0.003), steps=60)


class Block(nn.Module):
    """A residual block without any norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.last(F.relu(self.inner(inputs)))


def many_blocks() -> Training:
    """Add up 32 residual blocks without normalisation, whose common step is too long for what they start as."""
    blocks = lambda: nn.Sequential(nn.Linear(8, 16), *(Block(16) for _ in range(32)), nn.Linear(16, 4))  # noqa: E731
    return training(model=blocks, optimizer=sgd(0.15), steps=30)


def asleep() -> Training:
    """Every ReLU starts far in its flat half."""
    return training(model=changed(stack(), lambda m: [nn.init.constant_(x.bias, -6.0) for x in linears(m)[:-1]]))


# ---------------------------------------------------------------- normalisation, dropout


def overdropped() -> Training:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.95), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.95), nn.Linear(8, 4)
        )

    return training(model=build)


def stale_norms() -> Training:
    """Batch norm whose running statistics hardly move, so that evaluation sees another net than training."""

    def build() -> nn.Module:
        layers = [m for size in (8, 24) for m in (nn.Linear(size, 24), nn.BatchNorm1d(24, momentum=1e-4), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(24, 4))

    inputs, labels = blobs()
    return training((inputs * 5 + 20, labels), model=build)


class Words(nn.Module):
    """Counts words: is the first word of the vocabulary more frequent than the second?"""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(12, 8), nn.Linear(8, 16), nn.Linear(16, 4)
        nn.init.normal_(self.embed.weight, std=size)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(self.embed(words).mean(1))))


def sentences() -> tuple[Tensor, Tensor]:
    labels = torch.arange(384) % 4
    words = torch.randint(4, 12, (384, 6), generator=drawn(12))
    words[:, 0] = labels
    words[:, 3] = labels
    return words, labels


def tiny_embeddings() -> Training:
    return training(sentences(), model=lambda: Words(1e-4), optimizer=sgd(0.1))


class Transformer(nn.Module):
    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.body = nn.ModuleList(
            [nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(layers)]
        )
        self.head = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.embed(words)
        for layer in self.body:
            hidden = layer(hidden)
        return self.head(hidden.mean(1))


def post_norm() -> Training:
    return training(sentences(), model=Transformer, optimizer=adam(0.1), steps=50, goal=0.8)


# ---------------------------------------------------------------- initial weights


def blown_up() -> Training:
    """Hidden weights so large that the signal grows from layer to layer."""

    def change(model: nn.Module) -> None:
        for layer in linears(model)[:-1]:
            layer.weight.mul_(8)

    return training(model=changed(stack(depth=4), change), optimizer=sgd(0.3, 0.9))


def all_zero() -> Training:
    return training(model=changed(stack(), lambda m: [nn.init.zeros_(p) for p in m.parameters()]))


def all_one() -> Training:
    return training(model=changed(stack(), lambda m: [nn.init.ones_(p) for p in m.parameters()]))


def standard_normal() -> Training:
    def change(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.normal_(parameter)

    return training(model=changed(stack(depth=4, width=48), change), optimizer=sgd(0.01), steps=120)


def tiny_weights() -> Training:
    def change(model: nn.Module) -> None:
        for layer in linears(model):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(layer.bias)

    return training(model=changed(stack(depth=5, activation=nn.Tanh), change), optimizer=sgd(0.3))


def huge_last_layer() -> Training:
    return training(
        model=changed(stack(), lambda m: nn.init.normal_(linears(m)[-1].weight, std=100.0)), optimizer=sgd(0.05)
    )


def far_mean() -> Training:
    inputs, targets = curve()
    return numbers((inputs, 60 + targets), optimizer=adam(0.01))


def frozen() -> Training:
    """All but the last bias was frozen."""

    def change(model: nn.Module) -> None:
        for parameter in list(model.parameters())[:-1]:
            parameter.requires_grad_(False)

    return training(model=changed(stack(), change))


# ---------------------------------------------------------------- objectives


def clipped(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Take the categorical cross-entropy as Keras does: renormalised and clipped."""
    whole = probabilities / probabilities.sum(1, keepdim=True).clamp_min(1e-7)
    return F.nll_loss(whole.clamp(1e-7, 1 - 1e-7).log(), targets)


def clipped_binary(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(outputs.clamp(1e-7, 1 - 1e-7), targets)


def column() -> tuple[Tensor, Tensor]:
    inputs, labels = rings()
    return inputs, labels[:, None].float()


def binary(*last: nn.Module, **own: Any) -> Training:
    own = {"loss": clipped_binary, "optimizer": adam(0.02), "steps": 120, **own}
    return training(column(), model=stack(*last, inputs=2, outputs=1), **own)


def softmax_over_one_unit() -> Training:
    return binary(nn.Softmax(dim=1))


def relu_under_a_log_loss() -> Training:
    return binary(nn.ReLU(), optimizer=sgd(0.3, 0.9))


def linear_under_a_log_loss() -> Training:
    return binary(optimizer=sgd(0.3, 0.9))


def tanh_under_a_log_loss() -> Training:
    return binary(nn.Tanh(), optimizer=sgd(0.3, 0.9))


def sigmoid_before_logits() -> Training:
    return binary(nn.Sigmoid(), loss=nn.BCEWithLogitsLoss())


def entropy_of_one_column() -> Training:
    return binary(loss=nn.CrossEntropyLoss())


def relu_before_logits() -> Training:
    return training(model=stack(nn.ReLU(), width=6), optimizer=sgd(0.5))


def sigmoid_with_categorical() -> Training:
    return training(blobs(12), model=stack(nn.Sigmoid(), outputs=12), loss=clipped, optimizer=sgd(0.15))


def softmax_of_the_batch() -> Training:
    return training(model=stack(nn.Softmax(dim=0)), loss=nn.NLLLoss(), optimizer=sgd(0.1))


def negative_logits() -> Training:
    """Give the loss of log-probabilities plain logits: it falls without end."""
    return training(model=stack(), loss=nn.NLLLoss(), optimizer=sgd(0.5))


def square_of_classes() -> Training:
    inputs, labels = blobs(12)
    return training((inputs, F.one_hot(labels).float()), model=stack(nn.Softmax(dim=1), outputs=12), loss=nn.MSELoss(),
                    optimizer=sgd(0.3))  # fmt: skip


def softmax_of_labels() -> Training:
    """Several labels at once, of which a softmax can give one only."""
    inputs = torch.randn(384, 8, generator=drawn(13))
    labels = (inputs[:, :4] > -0.5).float()
    return training((inputs, labels), model=stack(nn.Softmax(dim=1)), loss=clipped_binary)


def relu_of_numbers() -> Training:
    return numbers(model=stack(nn.ReLU(), inputs=4, outputs=1))


def sigmoid_of_numbers() -> Training:
    inputs, targets = curve()
    return numbers((inputs, 3 * targets), model=stack(nn.Sigmoid(), inputs=4, outputs=1))


def column_against_flat() -> Training:
    inputs, targets = curve()
    return numbers((inputs, targets[:, 0]))


def sum_of_losses() -> Training:
    return training(loss=nn.CrossEntropyLoss(reduction="sum"), optimizer=sgd(0.3), batch_size=64)


def sum_of_squares() -> Training:
    return numbers(loss=lambda outputs, targets: (outputs - targets).square().sum(), optimizer=sgd(0.1))


def softmax_before_logits() -> Training:
    return training(blobs(12), model=stack(nn.Softmax(dim=1), outputs=12), optimizer=sgd(0.5))


def saturated() -> Training:
    """Clip the probabilities after a start that is sure and wrong."""
    sure = changed(stack(nn.Softmax(dim=1)), lambda m: nn.init.normal_(linears(m)[-1].weight, std=60.0))
    return training(model=sure, loss=clipped)


def saturated_binary() -> Training:
    inputs, labels = column()
    sure = changed(stack(nn.Sigmoid(), inputs=2, outputs=1), lambda m: nn.init.constant_(linears(m)[-1].bias, -100.0))
    return training((inputs, labels), model=sure, loss=clipped_binary, optimizer=adam(0.05), steps=150)


def wild_targets() -> Training:
    """One target in ten of the train set is far off."""
    inputs, targets = curve()
    hit = (torch.rand(len(inputs), 1, generator=drawn(14)) < 0.1) & (torch.arange(len(inputs)) < 256)[:, None]
    return numbers((inputs, torch.where(hit, 100.0 * targets.sign(), targets)), steps=150)


def wrong_labels() -> Training:
    """Nearly half of the train labels are wrong, and the net is large enough to learn them by heart."""
    inputs, labels = blobs(4, 300, spread=0.7)
    hit = (torch.rand(300, generator=drawn(15)) < 0.5) & (torch.arange(300) < 200)
    noisy = torch.where(hit, torch.randint(0, 4, (300,), generator=drawn(16)), labels)
    return training((inputs, noisy), model=stack(width=64), optimizer=adam(0.015), steps=150, goal=0.8)


def logarithm_by_hand() -> Training:
    """Some samples are far out: their probability is 0, and its logarithm the end."""

    def by_hand(probabilities: Tensor, targets: Tensor) -> Tensor:
        return F.nll_loss(probabilities.log(), targets)

    inputs, labels = blobs()
    hit = (torch.rand(len(inputs), 1, generator=drawn(7)) < 0.03) & (torch.arange(len(inputs)) < 256)[:, None]
    return training(
        (torch.where(hit, 300 * inputs, inputs), labels), model=stack(nn.Softmax(dim=1)), loss=by_hand,
        optimizer=sgd(0.1),
    )  # fmt: skip


# ---------------------------------------------------------------- precision


def half_weights() -> Training:
    """Adam's epsilon is 0 in float16."""
    inputs, labels = blobs()
    return training((inputs.half(), labels), model=lambda: stack()().half(), optimizer=adam(0.01))


def overflow() -> Training:
    """Activations beyond the range of float16."""
    inputs, labels = blobs()
    big = changed(stack(), lambda m: linears(m)[0].weight.mul_(3000))
    shrunk = lambda: nn.Sequential(*big()[:3], Times(100.0), Times(1e-6), *big()[3:])  # noqa: E731
    return training((inputs, labels), model=shrunk, precision="float16")


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


def underflow() -> Training:
    """Gradients below the smallest number of float16."""
    return training(
        model=stack(Times(1.0)), precision="float16", optimizer=adam(0.01, eps=1e-16),
        loss=lambda o, t: 1e-8 * F.cross_entropy(o, t),
    )  # fmt: skip


def exponential_in_half() -> Training:
    """Write the softmax by hand: in float16 its exponential overflows from 11 on."""

    def by_hand(outputs: Tensor, targets: Tensor) -> Tensor:
        sizes = torch.pow(torch.tensor(math.e, dtype=outputs.dtype), outputs)
        own = sizes.gather(1, targets[:, None])
        return -(own / sizes.sum(1, keepdim=True)).clamp_min(1e-6).log().mean()

    sharp = changed(stack(), lambda m: linears(m)[-1].weight.mul_(25))
    return training(model=sharp, loss=by_hand, precision="float16")


ROWS: list[tuple[str, dict[str, Any], Callable[[], Training]]] = [
    ("repair_non_finite", {}, holes),
    ("standardise", {}, far_inputs),
    ("min_max", {}, far_inputs),
    ("robust_scale", {}, outliers),
    ("winsorise", {"q": 0.9}, outliers),
    ("signed_log", {}, long_tails),
    ("standardise_targets", {}, far_targets),
    ("detach_targets", {}, targets_with_a_graph),
    ("shuffle", {}, in_class_order),
    ("oversampling_off", {}, one_class_drawn),
    ("balanced_sampler", {}, rare_class),
    ("larger_batch", {}, batches_of_one),
    ("smaller_batch", {"factor": 32}, one_batch_an_epoch),
    ("train_longer", {"factor": 4}, too_short),
    ("wider", {}, too_narrow),
    ("deeper", {"factor": 3.0}, too_shallow),
    ("narrower", {}, too_wide),
    ("shallower", {}, too_deep),
    ("residual", {}, too_deep),
    ("rezero", {}, too_deep),
    ("relu", {}, deep_sigmoids),
    ("tanh", {}, deep_sigmoids),
    ("elu", {}, deep_sigmoids),
    ("gelu", {}, deep_sigmoids),
    ("silu", {}, deep_sigmoids),
    ("selu", {}, asleep),
    ("leaky_relu", {}, asleep),
    ("prelu", {}, asleep),
    ("batch_norm_on", {}, asleep),
    ("layer_norm_on", {}, standard_normal),
    ("rms_norm_on", {}, deep_sigmoids),
    ("batch_norm_off", {}, stale_norms),
    ("group_norm", {}, stale_norms),
    ("spectral_norm", {}, blown_up),
    ("pre_norm", {}, post_norm),
    ("embedding_norm", {}, tiny_embeddings),
    ("dropout_on", {"p": 0.5}, wrong_labels),
    ("dropout_off", {}, overdropped),
    ("dropout_lower", {"factor": 0.1}, overdropped),
    ("he", {}, all_zero),
    ("xavier", {}, standard_normal),
    ("orthogonal", {}, tiny_weights),
    ("lecun", {}, standard_normal),
    ("lsuv", {}, tiny_weights),
    ("truncated_normal", {"std": 0.1}, all_zero),
    ("default_weights", {}, all_one),
    ("positive_bias", {}, asleep),
    ("small_last_layer", {}, huge_last_layer),
    ("output_prior", {}, far_mean),
    ("zero_residual_branches", {}, many_blocks),
    ("unfreeze", {}, frozen),
    ("fused_cross_entropy", {}, softmax_before_logits),
    ("fused_binary_cross_entropy", {}, saturated_binary),
    ("mixed_probabilities", {}, logarithm_by_hand),
    ("stable_max", {}, saturated),
    ("match_objective", {}, softmax_over_one_unit),
    ("match_objective", {}, relu_under_a_log_loss),
    ("match_objective", {}, linear_under_a_log_loss),
    ("match_objective", {}, tanh_under_a_log_loss),
    ("match_objective", {}, sigmoid_before_logits),
    ("match_objective", {}, entropy_of_one_column),
    ("match_objective", {}, relu_before_logits),
    ("match_objective", {}, sigmoid_with_categorical),
    ("match_objective", {}, softmax_of_the_batch),
    ("match_objective", {}, negative_logits),
    ("match_objective", {}, square_of_classes),
    ("match_objective", {}, softmax_of_labels),
    ("match_objective", {}, relu_of_numbers),
    ("match_objective", {}, sigmoid_of_numbers),
    ("match_objective", {}, column_against_flat),
    ("mean_reduction", {}, sum_of_losses),
    ("mean_reduction", {}, sum_of_squares),
    ("huber", {}, wild_targets),
    ("generalised_cross_entropy", {}, wrong_labels),
    ("loss_in_float32", {}, exponential_in_half),
    ("full_precision", {}, half_weights),
    ("bfloat16", {}, overflow),
    ("loss_scaling", {}, underflow),
]
