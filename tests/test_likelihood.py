"""Answers that are there already: their likelihood, drawing among them,
and what the gradient of such a draw is.
"""
import pytest
import torch
from conftest import random_model

from t2mini import evaluate, svf, tasks
from t2mini.questions.example import Example
from t2mini.likelihood import draw_from, likelihoods
from t2mini.machine.batches import NotFinite
from t2mini.recipe import TrainConfig, settled
from t2mini.reinforce import policy_gradient

OPTIONS = [([5, 6, 7], [[10, 11], [12], [13, 14, 15, 16]]), ([9], [[20, 20, 21], [22, 23]]),
           (list(range(30, 45)), [[1], [2, 3]])]
PROMPTS, ANSWERS = [p for p, _ in OPTIONS], [a for _, a in OPTIONS]


def tuned():
    model = random_model(1)
    svf.attach(model, progress=False)
    g = torch.Generator().manual_seed(0)
    svf.set_z(model, {n: 1 + 0.4 * torch.randn(len(layer.z), generator=g)
                      for n, layer in svf.layers(model).items()})
    return model


def apart(model, prompt, answer):
    """log pi(answer | prompt) by a forward pass of its own. Differentiable."""
    logp = model(torch.tensor([prompt + answer]))[0, len(prompt) - 1:-1].log_softmax(-1)
    return logp[range(len(answer)), answer].sum()


def test_likelihoods_are_those_of_separate_passes():
    """Fails if answers come back in the order of lengths, a token is left out,
    or one answer's sum runs into the next.
    """
    model = tuned()
    for got, (prompt, answers) in zip(likelihoods(model, OPTIONS, chunk=3), OPTIONS, strict=True):
        want = torch.stack([apart(model, prompt, a) for a in answers]).detach()
        torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
        assert not got.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_options_are_drawn_as_often_as_they_are_likely(temperature):
    """Fails if the temperature is left out or applied to single tokens, another text is drawn,
    or questions are mixed up.
    """
    model, n = tuned(), 4000
    tokens, finite = draw_from(model, PROMPTS, ANSWERS, n, temperature, 0, range(3))
    assert finite and len(tokens) == 3 * n
    for i, (scores, answers) in enumerate(zip(likelihoods(model, OPTIONS), ANSWERS)):
        drawn = tokens[i * n:(i + 1) * n]
        share = torch.tensor([drawn.count(a) / n for a in answers])
        assert share.sum() == 1
        torch.testing.assert_close(share, (scores / temperature).softmax(0), rtol=0, atol=0.03)


def test_a_question_draws_the_same_options_in_any_batch():
    """Fails if the stream of a question depends on its place in the batch, or not on the seed."""
    model = tuned()
    whole = draw_from(model, PROMPTS, ANSWERS, 40, 3.0, 7, [4, 5, 6])[0]
    assert draw_from(model, PROMPTS[1:], ANSWERS[1:], 40, 3.0, 7, [5, 6])[0] == whole[40:]
    assert draw_from(model, PROMPTS, ANSWERS, 40, 3.0, 8, [4, 5, 6])[0] != whole


def test_numbers_that_are_not_finite_are_told():
    """Fails if a model that is broken draws options as if nothing were wrong."""
    model = tuned()
    next(model.parameters()).data.fill_(float("nan"))
    assert draw_from(model, PROMPTS, ANSWERS, 2, 1.0, 0, range(3))[1] is False


def test_the_gradient_is_that_of_the_policy_over_options():
    """Fails if what makes the options' probabilities sum to 1 does not drop out:
    the policy that draws is then another than the one that learns.
    The oracle writes pi = softmax(likelihood / T) out and lets autograd differentiate it.
    """
    model, temperature = tuned(), 2.0
    drawn, advantage = (
        [[0, 0, 1, 2], [1, 0, 1, 1], [0, 1, 1, 0]],
        [[0.75, -0.25, -0.25, -0.25], [0.25, -0.75, 0.25, 0.25], [0.5, -0.5, 0.5, -0.5]])
    policy_gradient(
        model, [(p, [a[k] for k in ks]) for (p, a), ks in zip(OPTIONS, drawn)], advantage, 1.0)
    got = torch.cat([layer.z.grad for layer in svf.layers(model).values()])
    for layer in svf.layers(model).values():
        layer.z.grad = None
    with torch.enable_grad():
        loss = 0
        for (prompt, answers), ks, advs in zip(OPTIONS, drawn, advantage):
            logp = (torch.stack([apart(model, prompt, a) for a in answers])
                    / temperature).log_softmax(0)
            loss = loss - sum(adv * logp[k] for k, adv in zip(ks, advs))
        loss.backward()
    want = torch.cat([layer.z.grad for layer in svf.layers(model).values()])
    torch.testing.assert_close(got, temperature * want, rtol=1e-3, atol=1e-4)
    assert want.norm() > 0.1


def test_the_likeliest_option_is_the_answer(loaded, monkeypatch):
    """Fails if the longest, the first or the unlikeliest is taken,
    or an option is not written as the grader reads it.
    """
    model, tokenizer = loaded
    task = tasks.get("reasoning")
    asked = [Example("Which one?", "b c", "quoted", options=("a", "b c", "d")),
             Example("Or?", "y", "choice", options=("x", "y"))]
    for winner in (0, 1):
        monkeypatch.setattr(evaluate, "likelihoods", lambda m, groups: [
            torch.tensor([0.0 if k == winner else -9.0 for k in range(len(a))]) for _, a in groups])
        assert (evaluate.choices(model, tokenizer, task, asked)
                == [['a"', 'b c"'][winner], ["x", "y"][winner]])
        assert evaluate.score(model, tokenizer, task, asked, choose=True) == [float(winner)] * 2


def test_nothing_is_chosen_by_a_model_that_computes_no_numbers(loaded):
    """Fails if NaN likelihoods choose the first option: a broken expert would score as by chance.
    """
    model, tokenizer = loaded
    model.model.norm.weight.data[0] = float("nan")
    asked = [Example("Or?", "y", "choice", options=("x", "y"))]
    with pytest.raises(NotFinite):
        evaluate.choices(model, tokenizer, tasks.get("reasoning"), asked)


def test_a_label_closes_the_quotation_that_its_opener_opens():
    """Fails if the answers that options and next-token training score are not what a model writes
    behind 'This is "'.
    """
    asked = tasks.get("dispatch").examples("val", 1)[0]
    assert tasks.option_texts(asked) == [f'{label}"' for label in tasks.LABELS]
    assert all(tasks.right(asked, text.format(asked.answer)) for text in ("{}", '{}"', "{}."))


def test_what_has_no_options_is_told():
    """Fails if a question without options is answered with nothing,
    or a setting is taken under which the gradient is wrong.
    """
    with pytest.raises(ValueError, match="lists no options"):
        tasks.option_texts(Example("How many?", "3", "number"))
    for wrong in (dict(baseline="batch"), dict(baseline="none"), dict(temperature=0.0),
                  dict(as_released="no-baseline"), dict(as_released="retoken"),
                  dict(as_released="all")):
        with pytest.raises(ValueError, match="options needs --baseline=group"):
            settled(TrainConfig(objective="options", **wrong))
