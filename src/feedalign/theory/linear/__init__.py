r"""Deep linear networks under direct feedback alignment: all of their training in matrices of the size of the output.

From zero weights every step leaves each layer in the form of *weak weight alignment*,

.. math:: W_1 = F_1 A_1, \qquad W_l = F_l A_l F_{l-1}^T, \qquad W_L = A_L F_{L-1}^T,

exactly, for any data, batches and step size. So the alignment matrices A_1 [C, n_0], A_l [C, C] are the whole state,
whatever the widths: with G_l = F_lᵀ F_l, c_1 = A_1 x and c_l = A_l G_{l−1} c_{l−1} the output is c_L, and a step on
½|ŷ − y|², summed over the batch, is

.. math:: A_1 \mathrel{-}= η P e x^T, \qquad A_l \mathrel{-}= η P e c_{l-1}^T, \qquad A_L \mathrel{-}= η e c_{L-1}^T.

P is the identity, or the matrix that conditions the error for the hidden layers (`conditioner`).

Source: Refinetti et al. (2021), section 3; conditioned feedback follows from it.
"""

from feedalign.extras import needs

with needs("theory", __name__):
    from feedalign.theory.linear.drawing import draw_feedback
    from feedalign.theory.linear.first_steps import conditioner, first_steps
    from feedalign.theory.linear.residual import ResidualTraining, train_residual
    from feedalign.theory.linear.state import State, residuals
    from feedalign.theory.linear.training import Training, population, train

__all__ = [
    "ResidualTraining",
    "State",
    "Training",
    "conditioner",
    "draw_feedback",
    "first_steps",
    "population",
    "residuals",
    "train",
    "train_residual",
]
