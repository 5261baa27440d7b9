"""A remedy as plain Python: code for the places of a training script, and the script that has it there."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any

from torch import nn

_IMPORTS = {
    "copy": "",
    "math": "",
    "Callable": "collections.abc",
    "Iterable": "collections.abc",
    "Iterator": "collections.abc",
    "contextmanager": "contextlib",
    "dataclass": "dataclasses",
    "Any": "typing",
    "torch": "",
    "nn": "torch",
    "F": "torch.nn",
    "AdamW": "torch.optim",
    "Optimizer": "torch.optim",
}
_MADE = {
    "train_targets": "torch.stack([torch.as_tensor(targets) for _, targets in train_set])",
    "train_inputs": "torch.stack([torch.as_tensor(inputs) for inputs, _ in train_set])",
    "steps": "epochs * len(loader)  # all optimizer steps of the training",
    "parameters": '[p for group in optimizer.param_groups for p in group["params"]]',
}
MISSING = "NOT IN HERE: "
"""Begins the line that names a remedy which has no code of its own."""
_TITLE = "# ----"
_OURS = re.compile(r"(: |-> )(?:Average|Guard|Loss|Rule)(?: \| None)?\b")
_TOOLS = re.compile(r"[ \t]*# (?:noqa|type: ignore)\b.*")


@dataclass(frozen=True)
class Python:
    """Templates of code for the places of a training script. A place that stays empty keeps the script's own line.

    `$name` stands for a hyperparameter, or for what the change told (`Change.told`): texts as they are, other values as
    Python writes them. Where a change did not tell a name, it cannot be said without us in that training.

    The names of the script: `train_set`, `batch_size`, `epochs`, `sampler`, `train_inputs`, `train_targets`, `loader`,
    `steps` (all optimizer steps), `model`, `loss_fn`, `optimizer`, `parameters` (of the optimizer), `scheduler`,
    `loss`, and `clip(parameters)`, the script's own clipping.

    Attributes:
        define: classes and functions whose source is copied, or lines, above everything else.
        data: before the loader is built.
        model: after the model is built.
        loss: after the loss is built.
        optimizer: after the optimizer is built.
        scheduler: in place of the script's own scheduler.
        stretch: after the script's own scheduler is built, where it keeps that.
        stepped: when this scheduler is stepped: "step", "epoch" (then with the metric) or "" for never.
        guard: builds `guard(loss, model, optimizer)`, asked before each step for a factor on the learning rates.
        gradient: between `loss.backward()` and `optimizer.step()`, in place of the script's own clipping.
        after_step: after `optimizer.step()`.
        judged: a context manager that validation runs in.
        needs: further names that the change has to tell.
    """

    define: tuple[object, ...] = ()
    data: str = ""
    model: str = ""
    loss: str = ""
    optimizer: str = ""
    scheduler: str = ""
    stretch: str = ""
    stepped: str = ""
    guard: str = ""
    gradient: str = ""
    after_step: str = ""
    judged: str = ""
    needs: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether every place is a text, and every `$` in it begins a name."""
        return all(isinstance(text, str) and Template(text).is_valid() for text in (getattr(self, p) for p in PLACES))

    def code(self, values: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, str] | None:
        """Return the code for each place, or None where the change told too little."""
        if any(name not in told for name in self.needs):
            return None
        texts = {name: value if isinstance(value, str) else repr(value) for name, value in told.items()}
        texts = {**{name: repr(value) for name, value in values.items()}, **texts}
        try:
            return {place: Template(getattr(self, place)).substitute(texts) for place in PLACES}
        except KeyError:
            return None


PLACES = (
    "data", "model", "loss", "optimizer", "scheduler", "stretch", "stepped", "guard", "gradient", "after_step",
    "judged",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One remedy of a fix in a script: its label, and its code where it can be said without us."""

    label: str
    python: Python | None
    code: Mapping[str, str] | None = field(default=None)


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of the one at a path."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def script(pieces: Sequence[Piece], about: Iterable[str]) -> str:
    """Return a training script with the code of every piece in its place; `about` are lines for its head."""
    code = {place: [(p.label, p.code[place]) for p in pieces if p.code and p.code[place]] for place in PLACES}
    body = _with_names("\n".join([*_before(code), *_loop(code)]).lstrip())
    defined = "\n\n\n".join(_defined(pieces))
    head = [f"# {' '.join(line.splitlines())}".rstrip() for line in about]
    missing = (piece.label for piece in pieces if not piece.code)
    head += [f"# {MISSING}{label} is not expressible without remedy: use fix.yaml" for label in missing]
    parts = ["\n".join(head), "from __future__ import annotations", _imports(f"{defined}\n{body}")]
    return (
        "\n\n".join(part for part in parts if part) + "\n\n" + (f"\n{defined}\n\n\n" if defined else "") + body + "\n"
    )


def _before(code: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    lines = [*_title("data"), "train_set, batch_size, epochs, sampler = build_data()  # yours; sampler None: shuffled"]
    lines += [*_code(code["data"]), "loader = build_loader(train_set, batch_size, sampler)  # yours"]
    for name, build, place in (
        ("model", "build_model()", "model"),
        ("loss_fn", "build_loss()", "loss"),
        ("optimizer", "build_optimizer(model.parameters())", "optimizer"),
    ):
        lines += [*_title(place), f"{name} = {build}  # yours", *_code(code[place])]
    lines += _title("schedule")
    own = ["scheduler = build_scheduler(optimizer)  # yours; None where you have none", *_code(code["stretch"])]
    lines += _code(code["scheduler"]) or own
    lines += [*_code(code["guard"]), *_title("training")]
    return lines


def _loop(code: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    stepped = {when for _, when in code["stepped"]}
    own = not code["scheduler"]
    step = [*(_code(code["gradient"]) or ["clip(parameters)  # yours, where you clip"])]
    step += ["with rates_times(optimizer, factor):", "    optimizer.step()"] if code["guard"] else ["optimizer.step()"]
    step += _code(code["after_step"])
    if code["guard"]:
        step = ["factor = guard(loss.detach(), model, optimizer)", "if factor:", *_indented(step)]
    batch = ["optimizer.zero_grad()", "loss = loss_fn(model(inputs), targets)", "loss.backward()", *step]
    batch += ["scheduler.step()"] if "step" in stepped else []
    judged = [f"with {context}:" for _, context in code["judged"]]
    lines = ["for inputs, targets in loader:", *_indented(batch)]
    lines += [*judged, "    metric = validate(model)  # yours"] if judged else ["metric = validate(model)  # yours"]
    lines += ["scheduler.step(metric)"] if "epoch" in stepped else []
    lines += ["if scheduler is not None:", "    scheduler.step()  # yours: here, or after each step"] if own else []
    return ["for epoch in range(epochs):", *_indented(lines)]


def _with_names(body: str) -> str:
    """Build the names that the code of a remedy uses, where the script can: just before they are first used."""
    lines = body.splitlines()
    for name, made in _MADE.items():
        uses = re.compile(rf"(?<![.\w]){name}\b(?!\()")
        place = next((number for number, line in enumerate(lines) if uses.search(_bare(line))), None)
        if place is not None:
            while lines[place].startswith(" "):  # not inside a loop or a function
                place -= 1
            while lines[place - 1].startswith("# ") and not lines[place - 1].startswith(_TITLE):
                place -= 1  # not between a remedy's name and its code
            lines.insert(place, f"{name} = {made}")
    return "\n".join(lines)


def _title(name: str) -> list[str]:
    return ["", f"{_TITLE} {name}"]


def _code(pieces: Iterable[tuple[str, str]]) -> list[str]:
    return [line for label, text in pieces for line in (f"# {label}", *text.strip("\n").splitlines())]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


def _defined(pieces: Iterable[Piece]) -> list[str]:
    wanted = [thing for piece in pieces if piece.python and piece.code for thing in piece.python.define]
    texts = [thing if isinstance(thing, str) else _source(thing) for thing in wanted]
    return list(dict.fromkeys(texts))


def _source(thing: Any) -> str:
    text = textwrap.dedent(inspect.getsource(thing)).strip()
    # Names of types that are ours mean nothing there.
    return "\n".join(_OURS.sub(r"\1Any", _TOOLS.sub("", line)) for line in text.splitlines())


def _imports(text: str) -> str:
    bare = _bare(re.sub(r'""".*?"""', "", text, flags=re.DOTALL))
    wholes: dict[bool, list[str]] = {False: [], True: []}
    parts: dict[str, list[str]] = {}
    for name, module in _IMPORTS.items():
        if re.search(rf"(?<![.\w]){name}\b", bare):
            if module:
                parts.setdefault(module, []).append("functional as F" if name == "F" else name)
            else:
                wholes[name == "torch"].append(f"import {name}")
    blocks = []
    for ours, lines in wholes.items():
        froms = [f"from {m} import {', '.join(names)}" for m, names in parts.items() if m.startswith("torch") == ours]
        blocks.append("\n".join([*lines, *froms]))
    return "\n\n".join(block for block in blocks if block)


def _bare(text: str) -> str:
    """Return the text with its comments blanked out."""
    return re.sub(r"#.*", lambda found: " " * len(found[0]), text)
