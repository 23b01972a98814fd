"""The experiments by name: what each claims and which data sets it takes. Reading the list loads no experiment."""

from __future__ import annotations

# In the order of the report.
CLAIMS = {
    "two-phases": (
        "A shallow network trained with direct feedback alignment first aligns its readout with the feedback, and "
        "only then learns its teacher, giving some of the alignment up. The order-parameter equations describe both "
        "phases. The signs of the feedback decide which solution is found, or whether there is one."
    ),
    "degeneracy-breaking": (
        "Out of all equally good solutions, a student trained with direct feedback alignment takes the one whose "
        "readout overlaps most with the feedback."
    ),
    "relu-recovery": (
        "A ReLU student trained with direct feedback alignment learns a teacher of M units with positive readout "
        "exactly if at least M entries of its feedback are positive."
    ),
    "overparametrisation": (
        "The readout aligns with the feedback first, whether the student has fewer units than its teacher, as many, "
        "or more. An erf student with fewer units keeps as much of the alignment as one with as many; a student with "
        "twice as many or more keeps more. Units of a student with fewer still turn to single teacher units."
    ),
    "alignment-matrices": (
        "A deep linear network trained with direct feedback alignment from zero weights is described by alignment "
        "matrices of the size of the output; their conditioning decides how well its gradients align."
    ),
    "output-statistics": (
        "The worse the covariance of the outputs is conditioned, the worse the gradients of networks trained with "
        "direct feedback alignment align. This holds for linear and non-linear networks, and for targets that can be "
        "learned and targets that cannot."
    ),
    "conditioned-feedback": (
        "Feedback that is conditioned by the inverse root of the input-output covariance lets direct feedback "
        "alignment learn correlated and unequal outputs in as many steps as white ones."
    ),
    "layerwise": (
        "Deep networks trained with direct feedback alignment align layer by layer from the bottom, and runs from "
        "different seeds end at related weights; backprop's do neither."
    ),
    "convolution": (
        "Under random direct feedback, the gradients below a layer align less where its connections are sparse, and "
        "less again where its weights are shared. Within one net, alignability decides: scattering the rows of "
        "structured feedback lowers both alignability and gradient alignment. Between kinds of feedback, alignability "
        "does not decide. Learned feedback recovers more accuracy than random feedback and every fixed structure."
    ),
    "sharing": (
        "The more positions share a kernel, the less its weights can align with random feedback, and the less the "
        "gradients below it align."
    ),
}

NAMES = tuple(CLAIMS)

# The experiments that train on images; the others make their own data.
DATASETS = dict.fromkeys(("layerwise", "convolution", "sharing"), ("digits", "mnist", "cifar10"))
