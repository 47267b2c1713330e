"""Solutions of chapter 03, and one plausible wrong answer to each exercise."""


def exercise_1(U, S, Vt, z):
    return (U * (S * z)) @ Vt


def exercise_2(shapes, rank):
    return (sum(min(m, n) for m, n in shapes),
            sum(rank * (m + n) for m, n in shapes),
            sum(m * n for m, n in shapes))


def exercise_3(U, S, Vt, x, g):
    return S * ((g @ U) * (x @ Vt.T)).sum(0)                # S_i sum_t (u_i . g_t)(v_i . x_t)


WRONG = {
    # scales the columns of W
    1: lambda U, S, Vt, z: (U * S) @ Vt * z,
    # the longer side
    2: lambda shapes, rank: (sum(max(s) for s in shapes), sum(rank * sum(s) for s in shapes),
                             sum(m * n for m, n in shapes)),
    # without S
    3: lambda U, S, Vt, x, g: ((g @ U) * (x @ Vt.T)).sum(0),
}
