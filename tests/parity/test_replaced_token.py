"""The whole loss of ELECTRA beside two networks of `transformers`, with the same tokens put in the places of masked ones."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.builders import SIZE, VOCAB, gap, random_ids
from tests.references import build
from tests.references.reference import Case
from torch import Tensor

import bothways
from bothways.data.masking import Masking, Vocabulary
from bothways.data.sample import Sample
from bothways.objectives.replaced_token import ReplacedTokenDetection, ReplacedTokens

TOLERANCE = 1e-5
LENGTHS = (20, 9, 14)
# their names of some weights of every part, and ours
DISCRIMINATOR = {
    "electra.embeddings.word_embeddings.weight": "encoder.embedding.tokens.weight",
    "electra.embeddings.position_embeddings.weight": "encoder.embedding.positions.weight",
    "electra.embeddings.LayerNorm.weight": "encoder.embedding.norm.weight",
    "electra.embeddings_project.weight": "encoder.embedding.project.weight",
    "electra.encoder.layer.1.output.dense.weight": "encoder.layers.1.mlp.down.weight",
    "discriminator_predictions.dense.weight": "head.transform.dense.weight",
    "discriminator_predictions.dense_prediction.bias": "head.out.bias",
}
GENERATOR = {
    "electra.embeddings_project.weight": "generator.embedding.project.weight",
    "electra.encoder.layer.0.intermediate.dense.weight": "generator.layers.0.mlp.up.weight",
    "generator_predictions.dense.weight": "generator_head.transform.dense.weight",
    "generator_lm_head.bias": "generator_head.bias",
}


def padded(rows: list[Tensor], fill: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


def test_the_loss_of_electra_and_its_gradients(tmp_path: Path) -> None:
    """Generator of half the width on the discriminator's embedding; the sum of both means, 50 times the second."""
    narrow = {"hidden_size": SIZE // 2, "intermediate_size": 10}
    discriminator = build(Case("electra", "replaced_token"))
    generator = build(Case("electra", "masked_lm", narrow), seed=1)
    generator.electra.embeddings = discriminator.electra.embeddings  # type: ignore[union-attr]
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight  # type: ignore[union-attr]
    models = []
    for name, model in (("discriminator", discriminator), ("generator", generator)):
        model.save_pretrained(tmp_path / name)  # type: ignore[operator]
        models.append(bothways.load(tmp_path / name))
    heads = models[0].heads["replaced_token"], models[1].heads["masked_lm"]
    vocabulary = Vocabulary(VOCAB, 4, frozenset(range(5)))
    masking = Masking(rate=0.3, mask=0.85, random=0.0)
    ours = ReplacedTokenDetection(
        models[0].encoder, heads[0], models[1].encoder, heads[1], ReplacedTokens(), masking, vocabulary  # type: ignore[arg-type]
    ).eval()  # fmt: skip
    inputs = ours.prepare([Sample(id=i, sequences=(ids.astype("int32"),)) for i, ids in enumerate(random_ids(LENGTHS))], 0, 0)
    drawn = torch.randint(5, VOCAB, (len(inputs.masked.labels),))
    drawn[::3] = inputs.masked.labels[::3]

    sums = ours.generate(inputs)[0] | ours.discriminate(inputs, drawn)
    counts = ours.counts(inputs)
    total = torch.stack([weight * sums[name] / counts[name] for name, weight in ours.weights.items()]).sum()
    total.backward()

    split = list(LENGTHS)
    labels = torch.full((inputs.tokens,), -100)
    labels[inputs.masked.rows] = inputs.masked.labels
    read = inputs.replaced(drawn)
    mask = padded([torch.ones(length) for length in LENGTHS], 0)
    of_generator = generator(
        input_ids=padded(list(inputs.masked.batch.ids.split(split)), 0), attention_mask=mask,
        labels=padded(list(labels.split(split)), -100),
    ).loss  # fmt: skip
    of_discriminator = discriminator(
        input_ids=padded(list(read.split(split)), 0), attention_mask=mask,
        labels=padded(list((read != inputs.original).long().split(split)), 0),
    ).loss  # fmt: skip
    theirs = of_generator + 50 * of_discriminator
    theirs.backward()
    assert gap(total, theirs) <= TOLERANCE
    found = {name: parameter.grad for name, parameter in ours.named_parameters(remove_duplicate=False)}
    for model, names in ((discriminator, DISCRIMINATOR), (generator, GENERATOR)):
        expected = dict(model.named_parameters(remove_duplicate=False))
        for their_name, our_name in names.items():
            grad, reference = found[our_name], expected[their_name].grad
            assert grad is not None, our_name
            assert reference is not None, their_name
            assert gap(grad, reference) <= TOLERANCE, our_name
