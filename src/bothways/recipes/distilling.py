"""From a teacher to a smaller model, on text without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from bothways.data.loader import Loader
from bothways.data.masking import Masking
from bothways.data.packing import TokenBudget
from bothways.data.tokenizer import Tokenizer
from bothways.encoder.encoder import Encoder
from bothways.encoder.initialisation import initialise
from bothways.encoder.picking import spread_layers
from bothways.errors import InputError
from bothways.families.family import Heads
from bothways.layers.heads import MaskedLm
from bothways.model.folder import load
from bothways.model.model import Model
from bothways.model.student import distilbert_of, student_of
from bothways.objectives.distillation.masked_lm import MaskedDistillation
from bothways.objectives.distillation.methods import DistilBert, Method
from bothways.objectives.distillation.teacher import Teacher
from bothways.objectives.masked_lm import MaskedLanguageModeling, PrepareMasked
from bothways.recipes.assembling import EVALUATED
from bothways.recipes.audit import find_audit
from bothways.recipes.carrying_out import Say, Trained, averages, carry_out, claim
from bothways.recipes.corpus import files_of
from bothways.recipes.pretraining import (
    Parts,
    account,
    check,
    chosen,
    machine_rate,
    prepare_shards,
    prepare_tokenizer,
    remember_corpus,
    set_up,
    stream_state,
)
from bothways.recipes.recipe import Budget, Source
from bothways.recipes.runs import Distillation, GivenTokenizer, Pretraining
from bothways.training.optimizer import AdamW
from bothways.training.schedule import Fraction, Linear
from bothways.training.settings import TrainingConfig, Watch
from bothways.training.team import team

# The released weights and temperature
DISTILBERT = DistilBert()
# What a run of pretraining may learn from, and a student does not
_OTHERS = ("pairs", "decoder", "replaced_tokens", "ngrams", "vectors")


def distil(
    run: Distillation, folder: Path, say: Say = lambda line: None, command: str = "", device: str | None = None
) -> Trained:
    """Let a student learn on text from a teacher, or go on with it; the student is saved in `folder/model`.

    Raises:
        InputError: as `pretrain`; other tokenizers, or two models that the method cannot compare.
        Interrupted: after Ctrl-C, with everything saved; the same call goes on.
    """
    base = run.base
    check(base)
    if not base.masked_alone or base.masking.schedule is not None:
        what = f"leave out {', '.join(_OTHERS)}, predicts and masking.schedule"
        raise InputError(f"base: a student learns from masked tokens and what the teacher makes of them; {what}")
    if base.embeddings is not None:
        raise InputError("base.embeddings: a student begins as its teacher's layers or fresh; leave it out")
    if base.general is not None:
        raise InputError("base.general: what a student forgets is not measured; leave it out")
    claim(run, folder)
    teacher = load(run.teacher)
    with team().in_turn():
        remember_corpus(base, folder)
        tokenizer = prepare_tokenizer(base, folder, say)
        check_tokens(tokenizer, teacher, base.max_length)
        shards = prepare_shards(base, folder, tokenizer, say)
    parts = set_up(base, tokenizer, shards, chosen(device), say)
    plain = parts.objective
    assert isinstance(plain, MaskedLanguageModeling), "of masked tokens alone"
    if run.layers is not None:
        take_layers(plain.encoder, plain.head, _student(teacher, run.layers, base.family))
    objective = MaskedDistillation(plain.encoder, plain.head, Teacher(teacher), run.method, base.masking, parts.vocabulary)
    initialise(objective.terms, base.encoder.initialisation, base.encoder.num_layers, base.training.seed)
    trained = carry_out(
        run, folder, objective, parts.loader.open, _saved(parts, objective), _watch(base, parts, objective),
        title=f"Distilling {run.teacher}", command=command, metrics=("accuracy",) if run.method.masked_lm else (), say=say,
        audit=find_audit(files_of(base.source)),
        extra=lambda result: [account(parts.text.tally(parts.loader.plan, stream_state(result)), say)],
    )  # fmt: skip
    return replace(trained, epochs=trained.result.tokens / parts.epoch_tokens)


def distillation(
    source: Source, budget: Budget, teacher: str, student: int | tuple[int, ...] | Pretraining, method: Method = DISTILBERT
) -> Distillation:
    """A student trained as DistilBERT was (arXiv 1910.01108): lr 5e-4, warm-up 5 %, linear, clip 5, 15 % masked.

    8,192 tokens a step, and samples of at most 512 that the teacher can read, are ours (the paper: up to 4,000 samples a step).
    Its code selects rare tokens more often (`DISTILBERT` of `data.masking`); here all are selected alike.

    Args:
        student: the layers of the teacher that it begins as, or how many, spread evenly (`spread_layers`): of a BERT it is a
            DistilBERT, without token types, of any other a model of the teacher's family. Or a run, whose network it is, with the
            weights that the run begins with; what else the run learns from (pairs, replaced tokens, n-grams ...) is left out.

    Raises:
        InputError: no such model, or no such layers; one without a tokenizer or masked-language head to begin as.
    """
    model = load(teacher, device="cpu")
    run, layers = (student, None) if isinstance(student, Pretraining) else _begun(source, budget, teacher, model, student)
    base = replace(
        run,
        source=source,
        masking=Masking(rate=0.15),
        batching=TokenBudget(tokens=8192),
        training=_training(budget),
        max_length=min(run.encoder.max_length, model.spec.encoder.max_length, 512),
        embeddings=None,
        predicts="masked",
        **dict.fromkeys(_OTHERS),
    )
    return Distillation(base=base, teacher=teacher, method=method, layers=layers)


def _training(budget: Budget) -> TrainingConfig:
    return TrainingConfig(optimizer=AdamW(lr=5e-4), schedule=Linear(warmup=Fraction(of=0.05)), budget=budget, clip=5.0)


def _begun(
    source: Source, budget: Budget, teacher: str, model: Model, layers: int | tuple[int, ...]
) -> tuple[Pretraining, tuple[int, ...]]:
    """A run on a student of the teacher's own shape, and the layers it begins as; `model` is the teacher."""
    if model.tokenizer is None or model.spec.heads.masked_lm is None:
        raise InputError(f"{teacher}: a student on text begins as a teacher with a tokenizer and a masked-language head")
    numbers = spread_layers(model.spec.encoder.num_layers, layers) if isinstance(layers, int) else layers
    student = _student(model, numbers, "distilbert" if model.family.name == "bert" else model.family.name)
    run = Pretraining(
        family=student.family.name,  # type: ignore[arg-type]  (a test holds FamilyName to the families)
        encoder=student.spec.encoder,
        head=model.spec.heads.masked_lm,
        masking=Masking(rate=0.15),
        source=source,
        tokenizer=GivenTokenizer(folder=teacher),
        batching=TokenBudget(tokens=8192),
        training=_training(budget),
        max_length=student.spec.encoder.max_length,
    )
    return run, numbers


def check_tokens(tokenizer: Tokenizer, teacher: Model, longest: int) -> None:
    """Make sure that teacher and student read the same tokens.

    Raises:
        InputError: the teacher has none or another tokenizer, or reads no texts so long.
    """
    if teacher.tokenizer is None or teacher.tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError(
            f"{teacher.name}: teacher and student must cut text into the same tokens, and their tokenizers differ; "
            f"give the student the teacher's, or learn from the teacher's logits on labelled rows alone"
        )
    if longest > teacher.spec.encoder.max_length:
        most = teacher.spec.encoder.max_length
        raise InputError(f"{teacher.name}: reads at most {most} tokens, and samples have up to {longest}; lower max_length")


def _student(teacher: Model, layers: Sequence[int], family: str) -> Model:
    if family == "distilbert" and teacher.family.name != "distilbert":
        return distilbert_of(teacher, layers)
    if family != teacher.family.name:
        what = f"they are of a {teacher.family.name}, the student is a {family}"
        raise InputError(f"layers: {what}; leave them out, or let the student be of the teacher's family")
    return student_of(teacher, layers)


def take_layers(encoder: Encoder, head: MaskedLm, student: Model) -> None:
    """Copy a student's first weights into the modules that are trained.

    Raises:
        InputError: another shape.
    """
    if student.spec.encoder != encoder.config or "masked_lm" not in student.heads:
        raise InputError("layers: the teacher's do not make the student's encoder of base.encoder; leave one of the two out")
    encoder.load_state_dict(student.encoder.state_dict())
    head.load_state_dict(student.heads["masked_lm"].state_dict())


def _saved(parts: Parts, objective: MaskedDistillation) -> Model:
    """The student as it is saved: without a masked-language head, where nothing has trained it."""
    if objective.weights.keys() & {"kl", "masked_lm"}:
        return parts.model
    return parts.model.with_heads(Heads())


def _watch(run: Pretraining, parts: Parts, objective: MaskedDistillation) -> Watch:
    """The objective's figures on held-out text, and predictions where there is a head for them."""
    watch, device = parts.watch(run, machine_rate(parts)), str(parts.model.device)
    prepare = PrepareMasked(run.masking.measured(run.held_out_rate), parts.vocabulary)
    measured = Loader(parts.text.heldout, run.batching, prepare, run.training.seed, order=parts.text.heldout_order)
    evaluation, names = list(islice(measured.evaluation(), EVALUATED)), (*objective.weights, "accuracy")
    predicts = objective.weights.keys() & {"kl", "masked_lm"}
    return replace(
        watch,
        evaluate=lambda: averages(objective, evaluation, device, names),
        samples=watch.samples if predicts else None,
    )
