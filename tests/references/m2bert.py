"""M2-BERT restated from its paper (arXiv 2310.12109), its published code and the names of its released weights.

Independent of our code on purpose: rows padded to the full length, and convolutions as sums over all pairs of positions.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.builders import INNER, LAYERS, LONGEST, SIZE, VOCAB
from tests.references.reference import LABELS, Case, Reference
from torch import Tensor, nn


class _Sine(nn.Module):
    def __init__(self, size: int, first: float) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, size), float(first)))


class _Places(nn.Module):
    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        turns = torch.arange(length).float() / length * 2 * math.pi
        bands = [turns * f for f in torch.linspace(1e-4, (features - 1) // 2 - 1, (features - 1) // 2)]
        columns = [torch.linspace(0, 1, length), *(b.cos() for b in bands), *(-b.sin() for b in bands)]
        self.z = nn.Parameter(torch.stack(columns, dim=-1)[None])
        self.register_buffer("t", torch.linspace(0, 1, length)[None, :, None])


class _Fading(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("deltas", torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, size)[None, None])


class _Filter(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, order, features = config["hidden_size"], config["hyena_filter_order"], config["hyena_emb_dim"]
        self.bias = nn.Parameter(torch.randn(size))
        self.pos_emb = _Places(config["long_conv_l_max"], features)
        self.modulation = _Fading(size)

        def network(sine: nn.Module) -> nn.Sequential:
            parts = [nn.Linear(features, order), sine, nn.Linear(order, order), nn.Identity()]
            return nn.Sequential(*parts, nn.Linear(order, order), nn.Identity(), nn.Linear(order, size, bias=False))

        self.implicit_filter = network(_Sine(order, config["hyena_w"]))
        self.implicit_filter_rev = network(nn.Identity()) if config["bidirectional"] else None

    def values(self, network: nn.Sequential, length: int) -> Tensor:
        """[length, size]."""
        h, frequencies = self.pos_emb.z[0, :length], self.implicit_filter[1].freq
        for i in (0, 2, 4):
            h = torch.sin(frequencies * network[i](h))
        return network[6](h) * torch.exp(-self.pos_emb.t[0, :length] * self.modulation.deltas[0].abs())

    def forward(self, x: Tensor) -> Tensor:
        """Rows [rows, length, size]: the sum over every token, weighted by how far before or after it stands."""
        length = x.shape[1]
        lag = torch.arange(length)[:, None] - torch.arange(length)
        weights = torch.where((lag >= 0)[..., None], self.values(self.implicit_filter, length)[lag.clamp(0)], 0.0)
        if self.implicit_filter_rev is not None:
            behind = self.values(self.implicit_filter_rev, length)[(-lag - 1).clamp(0)]
            weights = torch.where((lag < 0)[..., None], behind, weights)
        return torch.einsum("tsd,rsd->rtd", weights, x) + self.bias * x


class _Mixer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.filter_fn = _Filter(config)
        self.filter_fn2 = _Filter(config) if config["residual_long_conv"] else None
        self.in_linear = nn.Linear(size, 3 * size)
        self.out_linear = nn.Linear(size, size)
        self.layernorm = nn.LayerNorm(size) if config["hyena_training_additions"] else nn.Identity()
        self.short_filter = nn.Conv1d(3 * size, 3 * size, 3, groups=3 * size, padding=2)

    def forward(self, u: Tensor) -> Tensor:
        u = self.layernorm(u)
        short = self.short_filter(self.in_linear(u).transpose(1, 2))[..., : u.shape[1]].transpose(1, 2)
        x1, x2, v = short.tensor_split(3, dim=-1)
        y = self.filter_fn(v * x1) * x2
        return self.out_linear(y if self.filter_fn2 is None else y + self.filter_fn2(u))


class _BlockdiagLinear(nn.Module):
    def __init__(self, size: int, out: int, blocks: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(blocks, out // blocks, size // blocks))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.block_diag(*self.weight), self.bias)


class _Mlp(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, inner, blocks = config["hidden_size"], config["intermediate_size"], config["monarch_mlp_nblocks"]
        self.gated_layers = _BlockdiagLinear(size, 2 * inner, blocks, bias=False)
        self.wo = _BlockdiagLinear(inner, size, blocks, bias=True)
        self.layernorm = nn.LayerNorm(size, eps=config["layer_norm_eps"])

    def forward(self, x: Tensor) -> Tensor:
        gated = self.gated_layers(x)
        inner = gated.shape[-1] // 2
        return self.layernorm(self.wo(F.gelu(gated[..., :inner]) * gated[..., inner:]) + x)


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.attention = _Mixer(config)
        self.mlp = _Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attention(x))


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size, padding_idx=config["pad_token_id"])
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], size)
        if config["use_positional_encodings"]:
            self.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.LayerNorm = nn.LayerNorm(size, eps=config["layer_norm_eps"])

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings(types)
        if hasattr(self, "position_embeddings"):
            x = x + self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(x)


class _Pooler(nn.Module):
    def __init__(self, size: int, pool_all: bool) -> None:
        super().__init__()
        self.dense, self.pool_all = nn.Linear(size, size), pool_all

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.tanh(self.dense(mean if self.pool_all else hidden[:, 0]))


class _Stack(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config["num_hidden_layers"]))


class M2Bert(nn.Module):
    """The bare model, under the released names."""

    def __init__(self, config: dict[str, Any], pooler: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Stack(config)
        self.pooler = _Pooler(config["hidden_size"], config["pool_all"]) if pooler else None

    @property
    def base_model(self) -> M2Bert:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> SimpleNamespace:
        assert input_ids.shape[1] == self.config["max_position_embeddings"]
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder.layer:
            x = layer(x)
        pooled = self.pooler(x, attention_mask) if self.pooler is not None else None
        return SimpleNamespace(last_hidden_state=x, pooler_output=pooled)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors")


class _WithHead(nn.Module):
    def __init__(self, config: dict[str, Any], pooler: bool) -> None:
        super().__init__()
        self.config = config
        self.bert = M2Bert(config, pooler)

    @property
    def base_model(self) -> M2Bert:
        return self.bert

    save_pretrained = M2Bert.save_pretrained


class _Transform(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)
        self.LayerNorm = nn.LayerNorm(size, eps=1e-12)


class _Bias(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(size))


class M2BertMaskedLm(_WithHead):
    """The vocabulary is the embedding; the bias is the decoder's."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config, pooler=False)
        self.cls = nn.Module()
        self.cls.predictions = nn.Module()
        self.cls.predictions.transform = _Transform(config["hidden_size"])
        self.cls.predictions.decoder = _Bias(config["vocab_size"])

    def forward(self, **given: Tensor) -> SimpleNamespace:
        head, act = self.cls.predictions, {"gelu": F.gelu, "relu": F.relu}[self.config["hidden_act"]]
        hidden = head.transform.LayerNorm(act(head.transform.dense(self.bert(**given).last_hidden_state)))
        return SimpleNamespace(logits=F.linear(hidden, self.bert.embeddings.word_embeddings.weight, head.decoder.bias))


class M2BertClassifier(_WithHead):
    """On the pooler, or on the first token with the pooler beside it."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config, pooler=True)
        self.classifier = nn.Linear(config["hidden_size"], config["num_labels"])

    def forward(self, **given: Tensor) -> SimpleNamespace:
        out = self.bert(**given)
        if self.config["use_cls_token"]:
            return SimpleNamespace(logits=self.classifier(out.last_hidden_state[:, 0]), pooler_output=out.pooler_output)
        return SimpleNamespace(logits=self.classifier(out.pooler_output))


REFERENCES = {
    "m2_bert": Reference(
        {
            "vocab_size": VOCAB,
            "hidden_size": SIZE,
            "num_hidden_layers": LAYERS,
            "intermediate_size": INNER,
            "max_position_embeddings": LONGEST,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "model_type": "m2_bert",
            "num_labels": LABELS,
            "pad_token_id": 0,
            "monarch_mixer_sequence_mixing": True,
            "long_conv_l_max": LONGEST,
            "hyena_w": 10,
            "hyena_emb_dim": 5,
            "hyena_filter_order": 16,
            "hyena_training_additions": False,
            "bidirectional": True,
            "residual_long_conv": True,
            "use_glu_mlp": True,
            "use_monarch_mlp": True,
            "monarch_mlp_nblocks": 4,
            "use_positional_encodings": True,
            "use_cls_token": False,
            "pool_all": False,
        },
        types=2,
        rows=LONGEST,
        classes={"bare": M2Bert, "masked_lm": M2BertMaskedLm, "classifier": M2BertClassifier},
    )
}
_LEGACY = {"hyena_training_additions": True, "hidden_act": "relu", "pad_token_id": 7}
_OTHERS = {
    "bidirectional": False,
    "residual_long_conv": False,
    "use_positional_encodings": False,
    "monarch_mlp_nblocks": 2,
    "long_conv_l_max": LONGEST + 9,
    "hyena_emb_dim": 7,
    "use_cls_token": True,
}
CASES = (
    *(Case("m2_bert", head) for head in ("bare", "masked_lm", "classifier")),
    Case("m2_bert", "masked_lm", _LEGACY, "legacy"),
    Case("m2_bert", "classifier", {"pool_all": True}, "pool-all"),
    Case("m2_bert", "classifier", _OTHERS, "causal-first-token"),
)
