"""How feedback matrices are drawn: small frozen recipes, which compose.

Convention: a feedback matrix F_l is [features, outputs]; the signal it carries is e Fᵀ, [batch, features]. The default
scale, 1/√features, gives columns of length about one, whatever the width of the layer. A recipe that thins, cuts or
repeats the matrix of another recipe scales the result, so that its columns keep that length.
"""

from feedalign.feedback.compact import Automatic, InFull, Sketched, Tokenwise
from feedalign.feedback.convolutional import FromMask, FromWeights, Smooth, Toeplitz
from feedalign.feedback.factors import Factors
from feedalign.feedback.form import Form, draw_stored, form_at
from feedalign.feedback.from_network import Aligned
from feedalign.feedback.given import FromArray
from feedalign.feedback.random import Gaussian, Orthogonal, Rademacher, Uniform
from feedalign.feedback.recipe import Convolution, Feedback, Place, check_recipe, draw_at, needs_jacobian
from feedalign.feedback.sketch import dense_sketch, draw_signs, outputs_per_column, sketched
from feedalign.feedback.structured import Channelwise, LowRank, Shared
from feedalign.feedback.transformed import Conditioned, Magnitudes, Sparse

__all__ = [
    "Aligned",
    "Automatic",
    "Channelwise",
    "Conditioned",
    "Convolution",
    "Factors",
    "Feedback",
    "Form",
    "FromArray",
    "FromMask",
    "FromWeights",
    "Gaussian",
    "InFull",
    "LowRank",
    "Magnitudes",
    "Orthogonal",
    "Place",
    "Rademacher",
    "Shared",
    "Sketched",
    "Smooth",
    "Sparse",
    "Toeplitz",
    "Tokenwise",
    "Uniform",
    "check_recipe",
    "dense_sketch",
    "draw_at",
    "draw_signs",
    "draw_stored",
    "form_at",
    "needs_jacobian",
    "outputs_per_column",
    "sketched",
]
