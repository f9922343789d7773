"""The model card of a run: the README.md of its repository on a hub."""

from __future__ import annotations

from collections.abc import Iterator

from scorefield._internal.text import one_line
from scorefield.runs.loading import OBJECTS
from scorefield.runs.run import Run
from scorefield.runs.summary import summary

CARD = "README.md"

_TEMPLATE = """---
library_name: scorefield
# license: choose one, such as apache-2.0
tags:
{tags}
---

# {title}

A score-based diffusion model of {data}, in continuous time. Replace this paragraph: describe the
data, the intended use and the limits of the model.

## Use

```python
import scorefield as sf

run = sf.Run.from_pretrained({arguments})  # this folder{own}
{sample}
```

## Description

| | |
|---|---|
{facts}
{measured}"""


def model_card(run: Run, title: str) -> str:
    """Return the card in Markdown: metadata, how to load the run, its settings, measured errors.

    The licence is left to the author.
    """
    data, rows = run.config.data, summary(run)
    table = bool(data.columns.names)
    condition = "given=0" if data.classes else ""
    call = f"run.sample{'_table' if table else ''}({', '.join(filter(None, ('16', condition)))})"
    own = [name for name in OBJECTS if getattr(run.config.train, name).kind == "custom"]
    return _TEMPLATE.format(
        title=_safe(title),
        arguments=", ".join([repr(title), *(f"{name}=..." for name in own)]),
        own=f", and its {' and '.join(own)}" if own else "",
        data=_safe(data.name),
        tags="\n".join(f"- {tag}" for tag in _tags(run)),
        sample=f"x = {call}",
        facts="\n".join(f"| {name} | {_safe(text)} |" for name, text in rows.items()),
        measured="\n".join(_measured(run)),
    )


def _tags(run: Run) -> Iterator[str]:
    data = run.config.data
    yield from ("scorefield", "diffusion", "score-based", "generative")
    yield (
        "class-conditional"
        if data.classes
        else "conditional"
        if data.conditions
        else "unconditional"
    )
    yield "images" if len(data.shape) == 3 else "tabular" if data.columns.names else "vectors"


def _measured(run: Run) -> Iterator[str]:
    """Yield the lines on measurements: on held-out data, and of tuned plans."""
    log = [] if run.folder is None else run.folder.log
    errors = [record for record in log if record.get("event") == "evaluation"]
    plans = run.plans
    if errors or plans:
        yield "\n## Measured\n"
    if errors and isinstance(errors[-1].get("error"), float):
        error, step = errors[-1]["error"], errors[-1].get("step")
        yield (
            f"Error of the denoiser on held-out data, relative to {run.config.data.baseline} "
            f"(below 1 if something was learned): {error:.4f} after {step} steps.\n"
        )
    if plans:
        yield "Tuned plans: distance of samples from the ends of the exact paths.\n"
        yield "| network calls | tuned plan | default plan |\n|---|---|---|"
    for calls, plan in plans.items():
        if (tuning := plan.tuning) is not None:
            interval = f"{tuning.low:.2g} to {tuning.high:.2g}"
            yield f"| {calls} | {tuning.error:.3g} ({interval}) | {tuning.default:.3g} |"


def _safe(text: str) -> str:
    """Return a text on one line that Markdown shows as it is."""
    return one_line(text, 300).translate({ord(c): f"\\{c}" for c in "|<>[]`"})
