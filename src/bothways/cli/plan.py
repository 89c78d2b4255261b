"""`bothways plan`: what a run will take, before it."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from bothways.cli.options import ColumnOption, JsonOption, examples
from bothways.cli.output import aligned, note, show
from bothways.cli.pretrain import read_run
from bothways.cli.train import HoursOption, SetOption, StepsOption, TokenizerOption, TokensOption, chosen_budget
from bothways.errors import InputError

if TYPE_CHECKING:
    from bothways.recipes.planning import Plan
    from bothways.recipes.runs import Pretraining, Staged
    from bothways.training.schedule import Hours, Steps, Tokens

_EXAMPLES = examples(
    "bothways plan modernbert_short my_texts/ --hours 8",
    "bothways plan bert --size mini --tokens 50000000 --watts 65 --price 0.40",
    "bothways plan run.json --seconds 30",
)


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(plan)


def plan(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A recipe (`bothways recipes`), or a run as JSON (`--dry-run`).")],
    corpus: Annotated[
        Path | None, typer.Argument(metavar="[CORPUS]", help="The text; without it, samples are taken to be full.")
    ] = None,
    size: Annotated[Literal["toy", "tiny", "mini", "base"], typer.Option("--size", help="base is the paper's.")] = "tiny",
    tokenizer: TokenizerOption = None,
    column: ColumnOption = "text",
    hours: HoursOption = None,
    tokens: TokensOption = None,
    steps: StepsOption = None,
    changes: SetOption = None,
    price: Annotated[float | None, typer.Option("--price", min=0.0, help="What an hour of this machine costs.")] = None,
    watts: Annotated[float | None, typer.Option("--watts", min=0.0, help="What this machine draws while it works.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="Measure steps for so many seconds, of each stage.")] = 8.0,
    as_json: JsonOption = False,
) -> None:
    """Say what a pretraining run will take on this machine: memory, time, energy, money; and what a budget buys.

    Memory is computed from the operations of a step. Speed is measured: some real steps of the run's own network.
    """
    from bothways.recipes.corpus import with_tokenizer
    from bothways.recipes.planning import Terms
    from bothways.recipes.planning import plan as look_ahead
    from bothways.recipes.pretraining import chosen
    from bothways.recipes.runs import Staged
    from bothways.recipes.staged import override_run, read_with

    budget = None if (hours, tokens, steps) == (None, None, None) else chosen_budget(hours, tokens, steps)
    whole, others, with_text = _run(run, corpus, size, column, budget)
    if tokenizer is not None:
        whole = read_with(whole, tokenizer)
        others = {name: with_tokenizer(one, tokenizer) for name, one in others.items()}
    whole = override_run(whole, changes or [])
    stages = dict(zip(whole.folders, whole.runs, strict=True)) if isinstance(whole, Staged) else {"": whole}
    terms, found = Terms(watts=watts, price=price, seconds=seconds, device=chosen(None)), {}
    for name, one in stages.items():
        note(f"{name or 'the run'}: " + ("a look at the text, then " if with_text else "") + f"{seconds:g} s of steps")
        found[name] = look_ahead(one, terms, with_text=with_text, sizes={} if name else others)
    data = {"stages": {name: _data(one) for name, one in found.items()}}
    text = [_text(stages[name], name, one, size if others else None) for name, one in found.items()]
    total = [] if len(found) == 1 else [_total(list(found.values()))]
    show(data if isinstance(whole, Staged) else data["stages"][""], "\n\n".join(text + total), as_json)


def _run(
    name: str, corpus: Path | None, size: Any, column: str, budget: Hours | Tokens | Steps | None
) -> tuple[Pretraining | Staged, dict[str, Pretraining], bool]:
    """The run, the other sizes there are of it where it has one stage, and whether its text can be read."""
    from dataclasses import replace

    from bothways.data.source import TextFiles
    from bothways.recipes.corpus import open_text
    from bothways.recipes.published import RECIPES
    from bothways.recipes.recipe import Size
    from bothways.recipes.runs import Pretraining, Staged
    from bothways.recipes.staged import read_with
    from bothways.training.schedule import Hours

    path = Path(name)
    if path.suffix == ".json":
        run = read_run(path)
        if isinstance(run, Staged) and (corpus, budget) != (None, None):
            raise InputError(f"{path}: says the text and budget of each of its stages; change them by --set")
        if isinstance(run, Pretraining) and corpus is not None:
            run = replace(run, source=open_text(corpus, column).source)
        if isinstance(run, Pretraining) and budget is not None:
            run = replace(run, training=replace(run.training, budget=budget))
        return run, {}, True
    if name not in RECIPES:
        raise InputError(f"{name}: neither a recipe ({', '.join(RECIPES)}) nor a .json file of a run")
    found = None if corpus is None else open_text(corpus, column)
    source = TextFiles(paths=("no text",)) if found is None else found.source
    made = {one: RECIPES[name](source, budget or Hours(hours=1), one) for one in get_args(Size)}
    if found is not None and found.tokenizer is not None:
        made = {one: read_with(other, found.tokenizer) for one, other in made.items()}
    run, others = made[size], {one: other for one, other in made.items() if isinstance(other, Pretraining) and one != "toy"}
    return run, others if isinstance(run, Pretraining) else {}, corpus is not None


def _data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON: bytes, seconds, FLOP/s."""
    from dataclasses import asdict

    tree = asdict(plan)
    lengths = tree["text"].pop("lengths")
    tree["text"] |= {"mean_length": float(lengths.mean()), "longest": int(lengths.max())}
    tree["parameters"] = {**plan.parameters, "total": plan.total}
    tree["measured"]["rate"] = plan.measured.rate
    tree["sizes"] = {one.name: asdict(one) | {"tokens_per_parameter": one.tokens_per_parameter} for one in plan.sizes}
    return json.loads(json.dumps(tree))


# -- for people -----------------------------------------------------------------------------------


def _total(plans: list[Plan]) -> str:
    """All stages of a run."""
    spent = [one.spent for one in plans]
    rows = {
        "all stages": f"{_count(sum(one.tokens for one in spent))} tokens in {sum(one.steps for one in spent):,} steps",
        "time": _time(sum(one.seconds + one.evaluation for one in spent)),
        "memory": f"{_bytes(max(one.memory.peak for one in plans))} at most",
    }
    if all(one.kwh is not None for one in spent):
        rows["energy"] = f"{sum(one.kwh or 0.0 for one in spent):,.3g} kWh"
    if all(one.money is not None for one in spent):
        rows["money"] = f"{sum(one.money or 0.0 for one in spent):,.2f}"
    return aligned(rows)


def _text(run: Pretraining, stage: str, plan: Plan, size: str | None) -> str:
    rows: dict[str, str] = {
        **({"stage": stage} if stage else {}),
        "network": f"{run.family}: {run.encoder.num_layers} layers of {run.encoder.hidden_size}, {plan.total:,} parameters",
        "": ", ".join(f"{name} {count:,}" for name, count in plan.parameters.items()),
        "text": _about_text(plan),
        "machine": _machine(plan),
        **_memory(plan),
        **_speed(run, plan),
        **_budget(plan),
    }
    return aligned(rows) if stage else "\n".join((aligned(rows), "", *_size(plan, size)))


def _about_text(plan: Plan) -> str:
    text = plan.text
    if text.tokens is None:
        return text.about
    some = "" if text.whole else "at least "
    mean, longest = text.lengths.mean(), text.lengths.max()
    return f"{some}{_count(text.tokens)} tokens in samples of {mean:,.0f} on average, at most {longest:,} ({text.about})"


def _machine(plan: Plan) -> str:
    told, measured = plan.machine, plan.measured
    rates = f"{measured.rate / 1e9:,.0f} while measuring"
    threads = f"{told['threads']} thread" + "s" * (told["threads"] != 1)
    where = f"{told['name']}, {threads}" if told["device"] == "cpu" else told["name"]
    return f"{where}; matrix products: {plan.best_rate / 1e9:,.0f} GFLOP/s at best, {rates}"


def _memory(plan: Plan) -> dict[str, str]:
    memory = plan.memory
    parts = {
        "program": memory.program,
        "text": memory.text,
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "allocator": memory.allocator,
        "checkpoints": memory.saving,
    }
    rows = {
        "memory": f"{_bytes(memory.peak)} at most, while it trains",
        " ": ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size),
    }
    if memory.free is not None:
        most = "not even the network" if memory.tokens is None else f"micro-batches of up to {memory.tokens:,} tokens"
        rows["  "] = f"{_bytes(memory.free)} are free: room for {most}"
    return rows


def _speed(run: Pretraining, plan: Plan) -> dict[str, str]:
    measured = plan.measured
    seen = f"{measured.steps} steps on {measured.tokens:,.0f} tokens each"
    scaled = f", scaled to {plan.micro_batch:,.0f}" if plan.micro_batch > 1.5 * measured.tokens else ""
    mean = measured.tokens / (measured.drawing + measured.gradients + measured.update)
    below, above = measured.low / mean - 1, measured.high / mean - 1
    return {
        "cost": f"{_count(plan.flops)} FLOPs a token, forward and backward",
        "speed": f"{plan.tokens_per_second:,.0f} tokens a second, {plan.share:.0%} of the rate of products",
        "   ": f"measured: {seen}{scaled}; eight in ten from {below:+.0%} to {above:+.0%} of their mean",
    }


def _budget(plan: Plan) -> dict[str, str]:
    spent = plan.spent
    epochs = "" if spent.epochs is None else f", {'' if plan.text.whole else 'at most '}{spent.epochs:,.2f} epochs of the text"
    rows = {
        "budget": f"{_count(spent.tokens)} tokens in {spent.steps:,} steps{epochs}",
        "time": f"{_time(spent.seconds)} of steps, {_time(spent.evaluation)} of evaluation; tokenizer, shards and report on top",
    }
    if spent.kwh is None or spent.watts is None:
        rows["energy"] = "unknown: the machine does not tell what it draws; give --watts"
    else:
        told = "as its own counters say" if spent.metered else "as given"
        rows["energy"] = f"{spent.kwh:,.3g} kWh at {spent.watts:,.0f} W ({told})"
    if spent.money is not None:
        rows["money"] = f"{spent.money:,.2f}"
    return rows


def _size(plan: Plan, size: str | None) -> list[str]:
    from bothways.recipes.sizing import RULE

    ratio = plan.spent.tokens / plan.total
    best = f"By it, this time at this speed is right for some {_count(plan.optimal_parameters)} parameters."
    lines = textwrap.wrap(f"This is {_ratio(ratio)} tokens a parameter. Rule: {RULE}. {best}", _width())
    if plan.suggested is None:
        return lines
    for one in plan.sizes:
        mark = "suggested" if one.name == plan.suggested else ""
        mark = ", ".join(filter(None, ("planned" if one.name == size else "", mark)))
        tokens = f"{_count(one.tokens):>8} tokens, {_ratio(one.tokens_per_parameter):>7} a parameter"
        lines.append(f"  --size {one.name:<5} {_count(one.parameters):>8} parameters: {tokens}  {mark}".rstrip())
    return lines


def _width() -> int:
    """Of running text: the terminal's, but for very wide ones."""
    return min(110, shutil.get_terminal_size((110, 24)).columns)


def _ratio(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _count(number: float) -> str:
    for scale, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= scale:
            return f"{number / scale:,.1f}{letter}"
    return f"{number:,.0f}"


def _bytes(number: int) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 1 << 30 else f"{number / 2**20:,.0f} MiB"


def _time(seconds: float) -> str:
    from bothways.training.report import duration

    return duration(seconds)
