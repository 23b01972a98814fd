"""The experiments by name: what each claims and which data sets it takes. Reading the list loads no experiment."""

from __future__ import annotations

# In the order of the report.
CLAIMS = {
    "two-phases": (
        "A shallow network trained with direct feedback alignment first aligns its readout with the feedback, much "
        "more than backprop from the same start, and only then learns its teacher. The cosine sinks while it learns, "
        "and ends higher than backprop's. The order-parameter equations describe erf students. The signs of the "
        "feedback decide which solution an erf student finds, and whether a ReLU student learns."
    ),
    "degeneracy-breaking": (
        "Out of all equally good solutions, a student trained with direct feedback alignment takes one that feedback "
        "and teacher alone decide: the one to which the equations lead from zero weights. With more than two hidden "
        "units this solution is often not the one whose readout overlaps most with the feedback."
    ),
    "relu-recovery": (
        "A ReLU student trained with direct feedback alignment learns a teacher of M units with positive readout "
        "exactly if at least M entries of its feedback are positive."
    ),
    "overparametrisation": (
        "The readout aligns with the feedback first, whether the student has fewer units than its teacher, as many, "
        "or more. An erf student with fewer units keeps nearly as much of the alignment as one with as many; a student "
        "with twice as many or more keeps more. Units of an erf student with fewer units lie between units of the "
        "teacher, more than those of a student with as many."
    ),
    "shallow-variations": (
        "From small or zero weights the readout aligns with the feedback first: also with label noise, with a teacher "
        "readout of alternating signs, with positive feedback, with four units, and with feedback that is orthogonal "
        "to the teacher's readout. A large initial readout hinders it. The signs of the feedback decide the solution "
        "of an erf student, even of one that starts near its teacher. Label noise takes a part of the alignment. The "
        "order-parameter equations describe all of these erf students."
    ),
    "alignment-matrices": (
        "In a deep linear network trained with direct feedback alignment from zero weights, the alignment matrices "
        "predict how well the gradients align: where the matrices of a network differ from those of other networks, so "
        "does the alignment. The worse the matrices are conditioned, the worse the gradients of the first layer align."
    ),
    "output-statistics": (
        "The worse the covariance of the outputs is conditioned, the worse the gradients of networks trained with "
        "direct feedback alignment align. This holds for linear, tanh and ReLU networks on targets that can be "
        "learned, and for linear networks on random targets. On white outputs the weight alignment of tanh networks "
        "peaks and declines late."
    ),
    "conditioned-feedback": (
        "Feedback that is conditioned by the inverse root of the input-output covariance lets direct feedback "
        "alignment learn correlated and unequal outputs in at most 1.2 times the steps that white outputs need. It "
        "gains more from this than backprop gains from the same conditioned error."
    ),
    "layerwise": (
        "Deep networks trained with direct feedback alignment align layer by layer from the bottom. Runs that share "
        "their feedback end at related weights; runs of backprop from the same starts do not."
    ),
    "deep-dynamics": (
        "Deep networks trained with direct feedback alignment first align and then memorise. Their gradients align "
        "long before they fit labels that are wrong, and the more labels are wrong, the later. While tanh networks fit "
        "wrong labels, the weight alignment of the second layer sinks; the more labels are wrong, the lower it ends. "
        "Networks that share their feedback end with related weights at every label noise; those of backprop do not."
    ),
    "width": (
        "Over-parametrisation helps deep networks to align under direct feedback alignment where the initial weights "
        "are small. From PyTorch's initial weights, wider networks end worse aligned and less alike. They also gain "
        "less over training the readout alone, as networks do under backprop."
    ),
    "gradient-perturbation": (
        "A gradient alignment is worth no particular accuracy. Backprop bears much random noise on its gradients and "
        "little noise that stays the same. Direct feedback alignment recovers more than backprop under fixed noise of "
        "the same alignment, and no less than under random noise."
    ),
    "convolution": (
        "Under random direct feedback, the gradients below a layer align less where its connections are sparse, and "
        "less again where its weights are shared. Within one net, scattering the rows of structured feedback lowers "
        "both alignability and gradient alignment. Between kinds of feedback, the one with the higher alignability "
        "need not learn more. Learned feedback recovers more accuracy than random feedback and every fixed structure."
    ),
    "sharing": (
        "Gradients below a layer whose positions share a kernel align less with random feedback than gradients below "
        "a layer without sharing, and random feedback recovers less of backprop's gain."
    ),
    "transformer": (
        "In Transformers trained with direct feedback alignment, gradients align better if all blocks share one "
        "feedback matrix, and better in post-norm than in pre-norm networks. With both, direct feedback alignment "
        "passes the control of frozen blocks, recovers at least half of backprop's gain over this control, and teaches "
        "the embedding."
    ),
}

NAMES = tuple(CLAIMS)

# The experiments that train on images; the others make their own data.
DATASETS = dict.fromkeys(
    ("layerwise", "deep-dynamics", "width", "gradient-perturbation", "convolution", "sharing"),
    ("digits", "mnist", "fashion-mnist", "cifar10", "cifar100"),
)
