r"""The order-parameter equations of the limit N → ∞.

With s = (−v, A), f = F under DFA and f = v under backprop, and the averages of `integrals`:

.. math::
    \dot R_{km} &= η f_k \sum_a s_a I_3(k; m, a), \qquad \dot v_k = η_v \sum_a s_a I_2(k, a),

    \dot Q_{kl} &= η f_k \sum_a s_a I_3(k; l, a) + η f_l \sum_a s_a I_3(l; k, a)
        + \frac{η^2}{B} f_k f_l \Big[\sum_{ab} s_a s_b I_4(k, l; a, b) + σ^2 J_2(k, l)\Big].

The last term comes from the length of an update. An average over B inputs makes it B times smaller, since different
inputs are orthogonal as N → ∞. The other terms are means, and do not change.

Source: Refinetti et al. (2021), appendix; Saad & Solla (1995).
"""

from __future__ import annotations

import numpy as np

from feedalign.checks import Array
from feedalign.theory.shallow.compiling import compiled
from feedalign.theory.shallow.integrals import RELU, i2, i3, i4, j2

# Order parameters are O(1); a state this large has no digits left for the differences that drive it.
DIVERGED = 1e12


@compiled
def covariance(Q: Array, R: Array, T: Array) -> Array:
    """Return the covariance of the local fields (λ, ν), [K+M, K+M]."""
    K = len(Q)
    C = np.empty((K + len(T), K + len(T)))
    C[:K, :K] = Q
    C[:K, K:] = R
    C[K:, :K] = R.T
    C[K:, K:] = T
    return C


@compiled
def _negative_part(C: Array) -> Array:
    """Return a symmetric matrix minus the nearest positive semi-definite one."""
    if not np.isfinite(C).all():  # implicit methods try states that are not finite; the drift is then not finite either
        return np.zeros_like(C)
    eigenvalues, vectors = np.linalg.eigh(C)
    if eigenvalues[0] >= 0.0:
        return np.zeros_like(C)
    return (vectors * np.minimum(eigenvalues, 0.0)) @ vectors.T


@compiled
def drift(
    state: Array,
    T: Array,
    A: Array,
    feedback: Array,
    backprop: bool,
    activation: int,
    lr: float,
    lr_readout: float,
    noise_variance: float,
    batch_size: int,
) -> Array:
    """Return d(state)/dt for a state that holds Q [K, K], R [K, M] and v [K] one after the other, flat.

    T is [M, M], A [M], feedback [K] (not read under backprop); noise_variance is σ².
    """
    M = A.size
    K = feedback.size
    n = K + M
    C = covariance(state[: K * K].reshape(K, K), state[K * K : K * n].reshape(K, M), T)
    # A solver's error can make C no covariance, and then averages of relu have no meaning: their formulas would drive a
    # student away from the teacher it has learned, to a false fixed point. So the averages are taken for the nearest
    # covariance, and the rest of C decays.
    beyond = _negative_part(C) if activation == RELU else np.zeros_like(C)
    C -= beyond
    v = state[K * n :]
    f = v if backprop else feedback
    s = np.concatenate((-v, A))

    pull = np.zeros((K, n))  # Σ_a s_a I3(k; m, a): the mean of g'(λ_k) u_m Δ
    for k in range(K):
        for m in range(n):
            for a in range(n):
                pull[k, m] += s[a] * i3(activation, C, k, m, a)

    change = np.empty_like(state)
    for k in range(K):
        for l in range(k, K):
            square = noise_variance * j2(activation, C, k, l)  # the mean of g'(λ_k) g'(λ_l) Δ²
            for a in range(n):
                square += s[a] ** 2 * i4(activation, C, k, l, a, a)
                for b in range(a):
                    square += 2 * s[a] * s[b] * i4(activation, C, k, l, a, b)
            change[k * K + l] = lr * (f[k] * pull[k, l] + f[l] * pull[l, k]) + lr**2 / batch_size * f[k] * f[l] * square
            change[k * K + l] -= lr * beyond[k, l]
            change[l * K + k] = change[k * K + l]
        for m in range(M):
            change[K * K + k * M + m] = lr * (f[k] * pull[k, K + m] - beyond[k, K + m])
        change[K * n + k] = 0.0
        for a in range(n):
            change[K * n + k] += lr_readout * s[a] * i2(activation, C, k, a)
    return change
