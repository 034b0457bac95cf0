"""AdaRank in NumPy, loops and all: the merge of one model and its gradients.

A model is a dict of float64 arrays by path. Gradients are the written formulas, not
automatic ones: with G the gradient with respect to the merged matrix and
m = sigmoid(b / temperature),

    dL/dm_tr = lambda_t s_tr u_tr^T G v_tr,      dm/db = m (1 - m) / temperature,
    dL/dlambda_t = <G, sum_r B_tr s_tr u_tr v_tr^T>.
"""

import math

import numpy as np


def sigmoid(value):
    """Returns the logistic function of one number."""
    return 1.0 / (1.0 + math.exp(-value))


def mask_value(logit, temperature, is_soft):
    """Returns one entry of the mask, hard unless told."""
    soft = sigmoid(logit / temperature)
    if is_soft:
        return soft
    return 1.0 if soft > 0.5 else 0.0


def merge(origin, finetuned, coefficients, mask_logits, temperature, is_soft=False):
    """Merges a model: every tensor that has mask logits is decomposed."""
    merged = {}
    for path, start in origin.items():
        total = start.copy()
        for t, expert in enumerate(finetuned):
            vector = expert[path] - start
            if path in mask_logits:
                logits = mask_logits[path][t]
                vector = masked(vector, logits, temperature, is_soft)
            total += coefficients[path][t] * vector
        merged[path] = total
    return merged


def masked(vector, logits, temperature, is_soft=False):
    """Adds up the kept singular components of one task vector."""
    u, s, vt = np.linalg.svd(vector, full_matrices=False)
    total = np.zeros_like(vector)
    for r in range(len(s)):
        kept = mask_value(logits[r], temperature, is_soft)
        total += kept * s[r] * np.outer(u[:, r], vt[r])
    return total


def gradients(
    origin,
    finetuned,
    coefficients,
    mask_logits,
    temperature,
    merged_gradient,
    is_soft=False,
):
    """Returns the gradients of coefficients and mask logits by path."""
    by_coefficient, by_logit = {}, {}
    for path, g in merged_gradient.items():
        by_coefficient[path] = np.zeros(len(finetuned))
        if path in mask_logits:
            by_logit[path] = np.zeros_like(mask_logits[path])
        for t, expert in enumerate(finetuned):
            vector = expert[path] - origin[path]
            if path not in mask_logits:
                by_coefficient[path][t] = np.sum(g * vector)
                continue
            logits = mask_logits[path][t]
            vector_kept = masked(vector, logits, temperature, is_soft)
            by_coefficient[path][t] = np.sum(g * vector_kept)
            u, s, vt = np.linalg.svd(vector, full_matrices=False)
            for r in range(len(s)):
                m = sigmoid(logits[r] / temperature)
                by_mask = coefficients[path][t] * s[r] * (u[:, r] @ g @ vt[r])
                by_logit[path][t, r] = by_mask * m * (1.0 - m) / temperature
    return by_coefficient, by_logit


def entropy(logits):
    """Returns the entropy in nats of the softmax of one row."""
    shifted = [value - max(logits) for value in logits]
    norm = sum(math.exp(value) for value in shifted)
    total = 0.0
    for value in shifted:
        p = math.exp(value) / norm
        if p > 0.0:
            total -= p * math.log(p)
    return total


def entropy_gradient(logits):
    """Returns dH/dz_c = -p_c (log p_c + H) for one row."""
    shifted = np.asarray(logits, np.float64) - max(logits)
    log_p = shifted - math.log(np.exp(shifted).sum())
    return -np.exp(log_p) * (log_p + entropy(logits))


def linear_loss(params, inputs):
    """Returns the mean entropy of a linear model, and its gradient by path.

    The model is `x @ kernel + bias`.
    """
    by_kernel = np.zeros_like(params["kernel"])
    by_bias = np.zeros_like(params["bias"])
    total = 0.0
    for x in inputs:
        logits = x @ params["kernel"] + params["bias"]
        total += entropy(logits) / len(inputs)
        by_logits = entropy_gradient(logits) / len(inputs)
        by_kernel += np.outer(x, by_logits)
        by_bias += by_logits
    return total, {"kernel": by_kernel, "bias": by_bias}
