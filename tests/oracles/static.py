"""Static merges in NumPy. A model is a dict of float64 arrays by path.

Orthogonal factors come from the symmetric eigenproblem of the Gram matrix, where the
package takes an SVD: X (X^T X)^(-1/2) is the P Q^T of X = P D Q^T.
"""

import math

import numpy as np


def averaging(finetuned):
    """Returns the mean of the models."""
    merged = {}
    for path in finetuned[0]:
        total = np.zeros_like(finetuned[0][path])
        for expert in finetuned:
            total += expert[path]
        merged[path] = total / len(finetuned)
    return merged


def task_arithmetic(pretrained, finetuned, coefficient):
    """Adds the scaled task vectors one by one."""
    merged = {}
    for path, start in pretrained.items():
        merged[path] = start.copy()
        for expert in finetuned:
            merged[path] += coefficient * (expert[path] - start)
    return merged


def cart(finetuned, decomposed, coefficient, rank_ratio):
    """Adds the truncated vectors centred on the average; the rest is the average."""
    merged = averaging(finetuned)
    for path in decomposed:
        centre = merged[path].copy()
        for expert in finetuned:
            vector = expert[path] - centre
            k = max(1, math.floor(min(vector.shape) * rank_ratio))
            merged[path] += coefficient * leading(vector, k)
    return merged


def tsv_m(pretrained, finetuned, decomposed, coefficient):
    """Adds the decorrelated leading directions; the rest gets the mean vector."""
    merged = add_mean(pretrained, finetuned, coefficient)
    for path in decomposed:
        start = pretrained[path]
        k = min(start.shape) // len(finetuned)
        left, values, right = [], [], []
        for expert in finetuned:
            u, s, vt = np.linalg.svd(expert[path] - start)
            for r in range(k):
                left.append(u[:, r])
                values.append(s[r])
                right.append(vt[r])
        u, v = polar(np.stack(left, axis=1)), polar(np.stack(right, axis=1))
        merged[path] = start + coefficient * u @ np.diag(values) @ v.T
    return merged


def iso_c(pretrained, finetuned, decomposed, coefficient):
    """Adds the sum of the task vectors with a flat spectrum; the rest, the mean."""
    merged = add_mean(pretrained, finetuned, coefficient)
    for path in decomposed:
        start = pretrained[path]
        total = np.zeros_like(start)
        for expert in finetuned:
            total += expert[path] - start
        mean = np.linalg.norm(total, "nuc") / min(total.shape)
        is_tall = total.shape[0] >= total.shape[1]
        factor = polar(total) if is_tall else polar(total.T).T
        merged[path] = start + coefficient * mean * factor
    return merged


def add_mean(pretrained, finetuned, coefficient):
    """Adds the scaled mean of the task vectors."""
    return task_arithmetic(pretrained, finetuned, coefficient / len(finetuned))


def leading(matrix, rank):
    """Adds up the leading singular components of a matrix."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    total = np.zeros_like(matrix)
    for r in range(rank):
        total += s[r] * np.outer(u[:, r], vt[r])
    return total


def polar(matrix):
    """Returns the orthogonal factor of a matrix of full column rank."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ vectors @ np.diag(values**-0.5) @ vectors.T
