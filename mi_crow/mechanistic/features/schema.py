"""The tables of `features.duckdb`, for the writer and the reader; torch-free.

`features.duckdb` is written once, under a temporary name, and only read from then on. Rows are in
feature order (documents in document order), which lets a reader skip most of the file.
"""

INDEX_SCHEMA_VERSION = 4
STRONGEST = 32  # features of each document that `document_features` keeps
# Version 2 has no `top_aurocs` and no held-out AUROC in `label_aurocs`: both are joined. Before
# version 4 there is no `feature_layers`: `layers/reading` says what is known without it.
OLDEST_READABLE = 2

# Table -> column -> DuckDB type.
TABLES: dict[str, dict[str, str]] = {
    "meta": {"key": "VARCHAR", "value": "VARCHAR"},  # texts as they are, everything else as JSON
    "features": {
        "feature": "INTEGER",
        "fires": "BIGINT",  # tokens with activation > 0
        "density": "DOUBLE",  # fires / n_tokens
        "max_act": "FLOAT",
        "mean_act": "DOUBLE",  # over firings
        "std_act": "DOUBLE",  # over firings, divided by their number
        "decoder_norm": "FLOAT",
        "encoder_decoder_cosine": "FLOAT",
        "histogram": "INTEGER[]",  # counts between the edges in meta.histogram_edges
        "skew": "FLOAT",  # of the effect on the logits
        "kurtosis": "FLOAT",  # excess, of the effect on the logits
        "map_x": "FLOAT",
        "map_y": "FLOAT",
        "top_label": "VARCHAR",  # the label of the highest AUROC on training documents
        "top_auroc": "DOUBLE",  # of `top_label` on training documents, by which it was chosen
    },
    # Of SAEs over several layers only, whose names are in `meta`.
    "feature_layers": {
        "feature": "INTEGER",
        "layer": "SMALLINT",  # place in meta.layers of the one that it is of
        # Of its decoder row in each of meta.layers_written, 0 where it does not write; of a
        # crosscoder in units of each layer's activations.
        "norms": "FLOAT[]",
    },
    "stored_documents": {  # the table behind the view `documents`
        "document": "INTEGER PRIMARY KEY",  # so that forty of a million are found quickly
        "text": "VARCHAR",
        "label": "VARCHAR",
        "split": "VARCHAR",  # train | heldout
        "token_ids": "INTEGER[]",
        "seen": "VARCHAR",  # what the model saw; NULL where that is `text`
        "token_ends": "INTEGER[]",  # characters of `seen` up to the end of each token
    },
    "labels": {"label": "VARCHAR", "documents": "INTEGER"},
    "feature_labels": {
        "feature": "INTEGER",
        "label": "VARCHAR",
        "auroc": "DOUBLE",  # training documents, max-pooled; NULL where one side is empty
        "mean_act": "DOUBLE",  # mean of the pooled activation over the label's training documents
        "lift": "DOUBLE",  # P(fires | label) / P(fires), training documents
        "auroc_heldout": "DOUBLE",  # held-out documents; for reporting, never for choosing
    },
    "document_features": {
        "document": "INTEGER",
        "feature": "INTEGER",
        "max_act": "FLOAT",
        "fires": "INTEGER",
    },
    "examples": {
        "feature": "INTEGER",
        "band": "TINYINT",  # 0: the strongest; 1..: quantile bands, 1 the highest
        "rank": "SMALLINT",
        "document": "INTEGER",
        "position": "INTEGER",
        "activation": "FLOAT",
        "window_start": "INTEGER",  # position of the first token of the window
        "acts": "FLOAT[]",  # the feature's activation on each token of the window
    },
    "logits": {
        "feature": "INTEGER",
        "sign": "TINYINT",  # 1 promoted, -1 suppressed
        "rank": "SMALLINT",
        "token_id": "INTEGER",
        "value": "FLOAT",
    },
    "tokens": {"token_id": "INTEGER", "token": "VARCHAR"},
    "neighbours": {"feature": "INTEGER", "rank": "SMALLINT", "other": "INTEGER", "cosine": "FLOAT"},
    "coactivations": {
        "feature": "INTEGER",
        "rank": "SMALLINT",
        "other": "INTEGER",
        "count": "BIGINT",  # tokens on which both fire
        "jaccard": "FLOAT",  # of the two sets of tokens
    },
}

# For a list column of texts DuckDB unpacks a million rows to read forty documents; one text and the
# ends of its tokens are read ten times as fast.
VIEWS: dict[str, str] = {
    # document, text, label, split, token_ids, token_texts: joined, what the model saw.
    "documents": """
SELECT document, text, label, split, token_ids,
    list_transform(
        token_ends,
        lambda last, n: substring(
            coalesce(seen, text),
            coalesce(token_ends[n - 1], 0) + 1,
            last - coalesce(token_ends[n - 1], 0)
        )
    ) AS token_texts
FROM stored_documents
""",
}

# The join behind the table `top_aurocs`; `{of}` is the prefix of its tables.
TOP_AUROCS = (
    "SELECT feature, coalesce(auroc_heldout, 'nan') AS auroc FROM {of}features JOIN "
    "{of}feature_labels USING (feature) WHERE label = top_label ORDER BY feature"
)

# Tables that are derived from complete ones.
DERIVED: dict[str, str] = {
    # The AUROCs of all features for one label, which `feature_labels` scatters over the file.
    "label_aurocs": (
        "SELECT label, feature, auroc, auroc_heldout FROM feature_labels ORDER BY label, feature"
    ),
    # The held-out AUROC of each feature's best label: the figure that is shown.
    "top_aurocs": TOP_AUROCS.format(of=""),
}

_DERIVED_COLUMNS: dict[str, dict[str, str]] = {
    "label_aurocs": {
        "label": "VARCHAR",
        "feature": "INTEGER",
        "auroc": "DOUBLE",
        "auroc_heldout": "DOUBLE",
    },
    "top_aurocs": {"feature": "INTEGER", "auroc": "DOUBLE"},
}


def tables_of(version: int) -> dict[str, dict[str, str]]:
    """The tables that are read from an index of this schema: column -> DuckDB type."""
    tables = {
        table: {name: kind.partition(" ")[0] for name, kind in columns.items()}
        for table, columns in TABLES.items()
    }
    if version < 4:
        del tables["feature_layers"]
    if version > 2:
        return tables | _DERIVED_COLUMNS
    old = dict(_DERIVED_COLUMNS["label_aurocs"])
    del old["auroc_heldout"]
    return tables | {"label_aurocs": old}
