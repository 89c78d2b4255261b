"""The published pretraining runs, and one of our own, by name.

Each is a function that returns a whole run: the paper's architecture, masking and optimiser. `size` scales the architecture
and the batch to the hardware: "base" is the paper's, "tiny" trains on a laptop, "toy" only shows that all of it works. What a
size changes is only what must shrink; the decisions stay the paper's. None of them is the paper's corpus: that is the
caller's. Where a budget is not given, base has the paper's.
"""

from __future__ import annotations

from bothways.recipes.beyond import biphasic, retromae
from bothways.recipes.classic import albert, bert, bert_next_sentence, cubert, gottbert, mosaicbert, roberta, tunbert
from bothways.recipes.deep import cramming, neobert
from bothways.recipes.modern import ettin, modernbert, modernbert_short, rexbert
from bothways.recipes.quick import speedrun
from bothways.recipes.recipe import Recipe
from bothways.recipes.replacing import deberta_v3, electra, electra_small, ernie_gram, modernbert_rtd

_LONG = "long documents for its later stages"

RECIPES = {
    one.name: one
    for one in (
        Recipe(bert, "arXiv 1810.04805", "110M", "English text, 3.3 billion words"),
        Recipe(bert_next_sentence, "arXiv 1810.04805", "110M", "English text, documents of several sentences"),
        Recipe(albert, "arXiv 1909.11942", "12M", "English text, documents of several sentences"),
        Recipe(roberta, "arXiv 1907.11692", "125M", "English text, 160 GB"),
        Recipe(mosaicbert, "arXiv 2312.17482", "137M", "English web text (C4), short documents"),
        Recipe(modernbert, "arXiv 2412.13663", "149M", f"English text and code, {_LONG}, the best of it for the last"),
        Recipe(modernbert_short, "arXiv 2412.13663", "149M", "English text and code"),
        Recipe(ettin, "arXiv 2507.11412", "17M", f"English text and code, {_LONG}"),
        Recipe(rexbert, "arXiv 2602.04605", "149M", f"general text, {_LONG}, and text of one domain chosen from it"),
        Recipe(neobert, "arXiv 2502.19587", "250M", f"English web text (RefinedWeb), {_LONG}"),
        Recipe(gottbert, "arXiv 2012.02110", "126M", "German web text (OSCAR), 145 GB"),
        Recipe(tunbert, "instadeepai/tunbert", "110M", "Tunisian comments, a line each: under 100 MB"),
        Recipe(cubert, "arXiv 2001.00059", "355M", "Python, as `bothways code build` writes it"),
        Recipe(electra, "arXiv 2003.10555", "110M", "English text, 3.3 billion words"),
        Recipe(electra_small, "arXiv 2003.10555", "14M", "English text, 3.3 billion words"),
        Recipe(deberta_v3, "arXiv 2111.09543", "184M", "English text, 160 GB"),
        Recipe(modernbert_rtd, "arXiv 2003.10555", "149M", "English text and code"),
        Recipe(ernie_gram, "arXiv 2010.12148", "110M", "English text, 16 GB or 160 GB"),
        Recipe(retromae, "arXiv 2205.12035", "110M", "English text, 3.3 billion words"),
        Recipe(biphasic, "arXiv 2507.00994", "210M", "English web text (FineWeb-Edu)"),
        Recipe(cramming, "arXiv 2212.14034", "120M", "English text, and one device for a day"),
        Recipe(speedrun, "benchmarks/speedrun", "149M", "any text, and an hour"),
    )
}
