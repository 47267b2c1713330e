"""Graders judge as a reader would, and give nothing for what cannot be read
(the released ones drop signs and commas).
"""
import pytest

from t2mini import tasks
from t2mini.grade import find_choice, find_code, find_number, graded_end
from t2mini.questions.example import Example, normal, same_value, split_of, to_number


def of(options, *cases):
    return [(options, text, want) for text, want in cases]

NUMBERS = [("1,234", 1234), ("-5", -5), ("\u22125", -5), ("3.0", 3), ("$3.50", 3.5),
           ("It is .5", 0.5), ("1,080", 1080), ("The answer is 8 apples, because 5 + 3 = 8.", 8),
           ("8 apples", 8), ("5 + 3 = 8\n#### 8", 8),
           ("He has 5 + 3 = 8 apples.", 8), ("8. Let me know if you have 2 other questions!", 8),
           ("5 + 3 = 8, then 8 - 2 = 6.", 6), ("The answer is: **12**.", 12),
           ("Answer: -3 degrees", -3), ("Tom has 9 left", 9), ("no number here", None), ("", None),
           ("x1y", None), ("5 x 4 = 20 cookies", 20), ("10 - 4 = 6 apples are left for 2 days", 6),
           ("2,080.", 2080), ("$1,234.50", 1234.5), ("+8", 8), ("(8)", 8), ("8", 8), ("**8**", 8),
           ("-8 apples", -8), ("5 + 3 = 8 apples. He has 8 left after giving 3", 8)]
SIGNS = [("It is -3 degrees.", -3), ("-$5", -5), ("#### -5", -5), ("5 - 8 = -3", -3),
         ("5 - 8 = \u22123", -3), ("5 - 8 = - 3", -3), ("It is minus 3 degrees.", -3),
         ("negative 3", -3), ("10 minus 4 is 6", 6), ("5-3=2", 2), ("- 8 apples", 8),
         ("The answer is \u20133.", -3), ("It is \uff0d$3", -3), ("The answer is - 5.", -5),
         ("#### - 5", -5), (r"\boxed{\u20135}".replace(r"\u2013", "\u2013"), -5),
         ("The answer is\n- 5 apples", 5), ("It has pages 3\u20135, so 9 in all", 9)]
MARKED = [("The answer is -5.", -5), ("The answer is 8, not 9.", 8), ("Answer: 5\nAnswer: 8", 8),
          ("The answer is $8", 8), ("The answer is 12 - 4 = 8.", 8), ("The answer is 5 + 3 = 8", 8),
          ("Tom has 3 boys. The final answer is 8.", 8),
          ("The answer to the question is 8. There were 3 boys.", 8), ("#### 1,080", 1080),
          ("48 / 2 = 24. So 48 + 24 = 72 clips. #### 72", 72),
          ("The answer: 1,080. It is not 2,080.", 1080)]
SUMS = [("12 - 5 = 7\n7 - 2 = 5", 5), ("5 + 3 = 8 + 2 = 10", 10), ("8 = 5 + 3", 8),
        ("8 (5 + 3 = 8)", 8), ("= 8", 8), ("3 apples + 5 apples = 8 apples", 8),
        ("5kg + 3kg = 8kg", 8), ("5 \u00d7 3 = 15", 15), ("48/2 = 24", 24),
        ("**5** + **3** = **8**", 8), ("3 boxes of 4 marbles make 12 marbles", 12),
        ("5 and 3 make 8", 8), ("3 cats have 12 legs.", 12), ("5 boxes hold 30 pens.", 30),
        ("12 legs because each cat has 4 legs.", 12), ("24 dollars if one costs 4 dollars", 24),
        ("She has 8 left out of 12.", 8), ("It is 5, not 6", 5),
        ("4 marbles in each of the 3 boxes", 4),
        ("8, which is 3 more than 5", 8), ("1) 5 + 3 = 8\n2) 8 - 2 = 6", 6),
        ("1. Tom has 5.\n2. He buys 3.\nSo he has 8", 8),
        # numbers of a list are no answers behind "Answer:" or "####" either
        ("Answer:\n1. Tom has 5.\n2. He buys 3: 5 + 3 = 8.", 8),
        ("#### 1. Tom\n4 + 1 = 5\n#### 2. All\n5 + 3 = 8", 8),
        ("1. Tom has 5.\n2. He buys 3.\n#### 8", 8), ("8. Why:\n1. Tom has 5.\n2. He buys 3.", 8),
        ("So:\n  1. 2 + 3 = 5\n  2. 5 + 3 = 8", 8),
        # a text that opens with a part of its sum
        ("2(5+3) = 16", 16), ("3 weeks = 21 days", 21), ("12 : 4 = 3", 3),
        ("2 dozen = 24 eggs", 24), ("8 = 5 + 3", 8), ("8 (5 + 3 = 8)", 8),
        # one that opens with what is given, and works it out in its next sentences
        ("6 friends share 24 apples. 24 / 6 = 4.", 4),
        ("16 eggs per day. 16 - 3 - 4 = 9 eggs are left. 9 * $2 = $18.", 18)]
UNITS = [("8kg", 8), ("The answer is 8kg.", 8), ("100cm", 100), ("24 cm\u00b2", 24), ("24cm2", 24),
         ("60mph", 60), ("It takes 30min.", 30), ("5hrs", 5), ("The area is 36 cm^2.", 36),
         (r"The area is $36 \text{ cm}^{2}$.", 36), ("x^2 = 36", 36),
         ("5%", 5), ("8\u00b0", 8), ("\u20ac8", 8), ("8 USD", 8), ("7th", None), ("A1", None)]
DENIED = [("The answer isn't 7.", None), ("It cannot be 7", None), ("x \u2260 12", None),
          ("x >= 12", None), (r"\boxed{x >= 12}", None), (r"\boxed{x != 12}", None),
          ("It is less than 12.", None), ("5 is not the answer", None), ("9 is wrong, so 8", 8),
          ("He can buy no more than 8 pens", 8), ("It is not less than 8", 8), ("n < 8", None),
          ("8 is not the largest number, but it is the answer", 8), ("<answer>8</answer>", 8),
          ("<think>5+3</think><b>8</b>", 8), ("Answer > 8", 8), ("8 is not it", None),
          ("5 is the answer", 5), ("> 5", 5), ("x=8", 8), ("The answer is 5, and 7 is wrong", 5)]
NOT_ONE = [("1.2.3", None), ("2024-05-01", None), ("05/01/2024", None), ("12:30", None),
           ("3-5", None), ("3\u20135", None), ("10 to 12", None), ("8 or 9", None), ("2 + 2", None),
           ("It takes 2 1/2 hours.", None),
           ("The answer is 5 + 3.", None), ("1/2", None), ("1,23", None), ("3,5", None),
           ("1,2345", None), ("eight", None), ("...", None), ("-", None), ("$", None)]


# CASES row 6: what stands in the box counts, whatever stands before or behind it
BOXED = [(r"3 hens lay 4 eggs each. Together that is twelve, so \boxed{12}.", 12),
         (r"\boxed{12}", 12), (r"$\boxed{-5}$", -5),
         (r"\boxed{8 raisins}", 8), (r"\boxed{4 cousins}", 4), (r"\boxed{20 secs}", 20),
         (r"\[\boxed{1,080}\]", 1080), (r"\boxed{1{,}080}", 1080), (r"\boxed{\$12}", 12),
         (r"\boxed{12\text{ eggs}}", 12), (r"\boxed{12 \text{ eggs}} because 3 + 4 = 7.", 12),
         (r"\boxed{x = 12}", 12), (r"\boxed{3 \times 4 = 12}", 12), (r"\boxed{\frac{24}{2}}", 12),
         (r"\boxed{\dfrac{1}{2}}", 0.5), (r"\boxed{3}, no: \boxed{12}", 12), (r"\boxed{50\%}", 50),
         (r"\boxed{12kg}", 12), (r"12 \boxed{12m}", None),
         (r"\boxed{12 eggs}", 12), (r"\boxed{12.0}", 12), (r"\fbox{12}", 12), (r"\boxed {12}", 12),
         (r"**\boxed{12}**", 12), (r"\boxed{\text{12}}", 12), (r"\boxed{12^\circ}", 12),
         (r"The answer is 12. \boxed{}", None), (r"5 + 3 = 8, so \boxed{8", None),
         (r"It is 12, or \boxed{twelve}", None), (r"\boxed{8 \text{ or } 9}", None),
         (r"12 \boxed{8, 9}", None), (r"12 \boxed{2x}", None),
         (r"12 \boxed{x + 3}", None), (r"12 \boxed{3ab}", None), (r"12 \boxed{3-5x}", None),
         (r"\boxed{2 + 2}", 4), (r"12 \boxed{?}", None), ("\\boxed{\u20ac12}", 12),
         ("\\boxed{12\u20ac}", 12), ("\\boxed{\u00a312.50}", 12.5), (r"\boxed{\pounds 12}", 12)]
# a bold number alone is a result; the verb "answer" announces nothing
CONCLUDED = [("Raj plays **36 games** in 4 weeks.", 36), ("4 * 9 = 36\n\n**$36**", 36),
             ("**1. First step** 9 * 4 = 36", 36), ("**Step 2**: 9 * 4 = 36", 36),
             ("9 * 4 = 36, so in 4 weeks he plays 36.", 36), ("So 3 * 4 = 12", 12),
             ("2 - 5 = -3. So it is -3.", -3),
             ("She can answer 5 questions per hour. 5 * 4 = 20.", 20),
             ("Answer\n5, since 8 - 3", 5),
             ("8 + 1 = 9. So the 2 girls have it.\nThen 9 - 3 = 6.", 6),
             ("He plays **9 games** per week. So in 4 weeks he plays **a total of 36 games**.",
              36),
             ("Her profit is **$10** per day. In a week, that makes $70.", 70),
             ("8 or **9**", None),
             ("**2 weeks later:** she has 30 apples", 30), ("Half of **12** is 6.", 6),
             ("12 - **5**", None), ("Answer: **36**. Check: 36 / 9 = 4.", 36),
             ("#### **36**\n36 / 9 = 4", 36),
             ("9 * 4 = 36 games in **4 weeks**.", 36), ("It's 5, not **6**.", 5),
             ("There are **3 boxes** with **4 apples** each: 12 apples in all.", 12),
             ("She has **8** left out of **12**.", 8), ("He has **5** + **3** apples", None),
             ("2**3 + 2**2", None), ("**1.** 9 * 4 = 36\n**2.** He plays that many.", 36),
             ("All they answered is 9 + 2 = 11.\nSo she was able to answer 20 - 11 = 9.", 9),
             ("The final answer 36.\n36 / 9 = 4", 36)]
SET_OFF = [(r"3 + 4 = 7. The answer is \(12\).", 12), (r"3 + 4 = 7\nAnswer: \$12", 12),
           ("9 - 2 = 7. The answer is $-7$.", -7), ("It is *36*", 36), ("2 *3* 4 = 24", 24),
           ("The answer is $70{,}000$.", 70_000), (r"It is 70\,000", 70_000), ("3 * 4 * 5", None),
           (r"Answer: \[12\]", 12), ("The answer is $12$", 12), (r"3 + 4 = 7\n#### \$12", 12)]

# answers of a 0.5B model to GSM8K: units in \text{} inside a sum, \frac{}{}, a program,
# a sum that the limit cut off
SET_IN_LATEX = [
    (r"So far 80. \[ 12 \text{ hours} + 18 \text{ hours} = ", 80),
    (r"\( 3 \, \text{bags} \times 4.00 \,", None),
    (r"\[ 14 \text{ pails/week} + 42 \text{ pails/week} \]", None),
    (r"\[ 12 \text{ hours} + 18 \text{ hours} = 30 \text{ hours} \]", 30),
    (r"It has 3 rooms: \frac{2}{9} \times \frac{1}{3} = \frac{2}{27}. Thus it has", 3),
    (r"\frac{36 \text{ cups}}{4 \text{ cups/jar}} = 9", 9), (r"\[ \dfrac{3 \times 4}{2} = 6 \]", 6),
    (r"Then 36 are left. Total = 45 +", 36), ("Then 36 are left. The answer is 45 -\n", 36),
    (r"\[ 20 \text{ feet} \div 2 = 10 \]", 10), (r"5 \cdot 3 = 15", 15), (r"5 \timeshare", 5),
    ("10^2 = 100", 100), (r"\( 10^{2} = 100 \)", 100), ("10^2", None), ("36 cm^2", 36),
    (r"36 \text{ cm}^2", 36), ("He calls 8 times", 8), ("8 times", 8),
    ("It is 12 - 5 = 7 x", 7), ("8 +", None)]
THOUSANDS = [("The answer is 1\u00a0234.", 1234), ("1'234", 1234), (r"\boxed{70 000}", 70000),
             ("It's 5\u2019000 in all", 5000), ("3 100-gram bars", 3)]
PROGRAMS = [("So each girl brought 10. In Python:\n```python\ncups = 90\nprint(cups / 5)", 10),
            ("```python\nprint(6 * 7)\n```\n", None),
            ("It is 7.\n```python\nx = 5\n```\nand no more.", 7),
            ("```python\nprint(40 + 2)\n```\n```output\n42\n```", 42),
            ("Work:\n  ```py\n  x = 5\n  ```\nThe answer is 8", 8), ("```\n8\n```", 8)]


@pytest.mark.parametrize("text, want", NUMBERS + SIGNS + MARKED + SUMS + UNITS + NOT_ONE
                         + CONCLUDED + DENIED + THOUSANDS
                         + BOXED + SET_OFF + SET_IN_LATEX + PROGRAMS)
def test_numbers(text, want):
    """Fails if a sign, a comma or trailing text changes the answer read, or a part of a sum,
    a date, a range, a fraction or a program is one.
    """
    assert find_number(text) == want


def test_1080_is_not_2080():
    """Fails if a comma cuts a number (the release reads both as 80),
    or if the sign of the answer does not count.
    """
    one = Example("p", "1,080", "number")
    assert ([tasks.right(one, text)
             for text in ("1,080", "1080.0", "2,080", "80", "-1,080", "1,080.5", "none")]
            == [True, True, False, False, False, False, False])
    assert not tasks.right(Example("p", "2,125,000", "number"), "2125001")


def test_large_whole_numbers_are_compared_exactly():
    """Fails if two numbers that differ in the last of many digits are one."""
    one, other = "9007199254740993", "9,007,199,254,740,992"
    for gold, said, earned in ((one, one, 1), (one, other, 0), (one, rf"\boxed{{{one}}}", 1),
                               (one, "5", 0), ("5", one, 0), ("9" * 400, "9" * 400, 1)):
        assert tasks.rewards([Example("p", gold, "number")], [said]) == [earned], (gold, said)
    assert to_number("9" * 5000) is None
    large = "1" * 310 + ".5"                # has no float
    assert tasks.rewards([Example("p", "5", "number")] * 2, [large, f"It is {large}."]) == [0, 0]


def test_a_number_without_end_earns_nothing():
    """Fails if an answer that is too large for a float ends the training, or many empty lines
    take minutes.
    """
    huge = r"\boxed{" + r" \cdot ".join(["10^{64}"] * 5) + "}"
    assert tasks.rewards([Example("p", "5", "number")] * 2, [huge, "5" + "\n" * 100_000]) == [0, 1]


@pytest.mark.parametrize("text, want", [
    ("C) sofa is wrong", None), ("(C) is not it", None), ("C. is false", None), ("no sofa", None),
    ("anything but a sofa", None), ("none of them is a sofa", None), ("C) sofa", 2),
    ("I choose C", 2), ("I'd go with B.", 1), ("The answer must be C", 2), ("Ans: D", 3),
    ("The correct answer would be C.", 2), ("B) because A is wrong", 1), ("I say A sofa", 2),
    ("B) A dog is not the same", 1), ("B is correct. If I choose A, it fails", 1),
    ("Why would I pick B? A is right", None)])
def test_options_that_are_refused_or_announced_in_other_words(text, want):
    """Fails if an option that is refused earns, or a usual announcement is not read."""
    assert find_choice(text, FOUR) == want


def test_more_than_ten_options_have_letters():
    """Fails if the eleventh option can be named by its words only."""
    options = tuple(f"word{n}" for n in range(12))
    assert find_choice("K", options) == 10 and find_choice("The answer is L.", options) == 11


def test_to_number_takes_one_number_only():
    """Fails if a gold answer such as "3 or 4" counts as a number."""
    assert to_number("1,000.5") == 1000.5
    assert to_number("3 or 4") is None and to_number("1,0") is None
    assert to_number(" -$3 ") == -3 and to_number("8 apples") is None and to_number("") is None


FOUR = ("dog", "hot dog", "sofa", "ice")


@pytest.mark.parametrize("text, want", [
    ("sofa", 2), ("The answer is sofa.", 2), ("C", 2), ("C) sofa", 2), ("(C)", 2), ("C. sofa", 2),
    ("The answer is C", 2), ("A) sofa", None), ("sofa or ice", None),
    ("A dog is an animal, so sofa", None), ("A", 0), ("I think ice", 3), ("hot dog", 1),
    ("Sofa!", 2), ("The answer is (B) hot dog", 1), ("nice sofas", None), ("", None), ("E", None),
    ("Answer: D", 3), ("dog", 0), ("a hot dog", 1), ("hot dogs", None), ("SOFA", 2),
    ("**C**", 2), ("[C]", 2), ("C.", 2), ("\\boxed{C}", 2), ("\\boxed{\\text{C}}", 2),
    ("So \\boxed{\\textbf{(C)}\\ sofa}", 2), ("\\boxed{\\text{sofa}}", 2), ("c", 2), ("c)", 2),
    ("(c)", 2), ("the answer is c.", 2), ("answer: d", 3), ("option (c)", 2),
    # as models that write LaTeX put it
    (r"\(\boxed{C}\)", 2), (r"The answer is $\boxed{C}$.", 2),
    (r"The answer is \(\boxed{\text{C}}\).", 2), ("$C$", 2), (r"\(C\)", 2),
    (r"\[\boxed{\text{(C) sofa}}\]", 2), ("C is correct.", 2),
    ("B is the right option, as one eats it", 1), ("The answer is $C$", 2),
    ("C is nice", None), ("A cat is correct", None), ("Option C", 2), ("The right letter is C", 2),
    ("C\n\nBecause one sits on it.", 2), ("The correct answer is: C", 2),
    ("C: sofa", 2), ("The answer is **(B) hot dog**", 1),
    # what is denied is not chosen
    ("It is not sofa.", None), ("not a dog", None), ("Not the ice", None),
    ("It isn't a sofa", None), ("a hot dog, not a sofa", 1), ("It can't be ice.", None),
    ("Option A is correct. Option C is incorrect.", 0), ("Option C is wrong.", None),
    ("The answer is C, which is wrong", None), ("Ice is not cold, so sofa", 2),
    ("dog isn't right; ice", 3), ("Option C is correct. Option A is not.", 2),
    # letter and words disagree, several are named, or an earlier choice is revised
    ("A) dog B) hot dog", None), ("dog, hot dog", None), ("hot dog or dog", None),
    ("A) dog, no: ice", None), ("The answer is A or B", None), ("The answer is A and C.", None),
    ("The answer is A, B", None), ("A or B", None), ("A. B. C. D.", None), ("A)\nB)\nC)\nD)", None),
    ("The answer is C. No wait, the answer is D.", 3),
    ("Answer: C\nAnswer: D", 3), ("The answer is C, so ice", None),
    # what is announced decides, not what explains it
    ("The answer is B. If you want to know more about option A, ask!", 1),
    ("The answer is B. Option A is an animal, option C is furniture.", 1),
    ("A) dog\nB) hot dog\nC) sofa\nD) ice\n\nAnswer: B", 1),
    ("The answer is ice because a dog is an animal.", 3), ("To answer this, see dog: ice", None),
    ("The answer is sofa, because a dog is an animal.", 2),
    ("The answer is: sofa\nA dog is no sofa.", 2), ("The answer is: C) sofa.\nNot the ice.", 2),
    ("Answer A does not fit.\nAnswer B does not fit.\nThe correct choice is C.", 2),
    ("If the answer is A, then it is hot. It is cold, so the correct option is C.", 2),
    ("The answer is A.\nNo wait, the correct option is C.", 2),
    ("You might pick A, but the correct option is C.", 2), ("The answer\nis B", 1),
    # letters that are set off or named in other ways
    ("The answer is *C*", 2), ('The answer is "C".', 2), ("The answer is `C`", 2),
    ("C is the answer.", 2), ("It is a", None),
    # a list of the options, a denial and a condition announce nothing
    ("The correct answer is:\nA) dog\nB) hot dog\nC) sofa\nD) ice", None),
    ("Answer: A. dog B. hot dog C. sofa", None), ("Answer: A: dog; B: hot dog; C: sofa", None),
    ("The answer is:\n- dog\n- hot dog\n- sofa", None), ("The answer is dog; hot dog; sofa", None),
    ("The answer cannot be dog. It must be a sofa.", 2), ("The wrong answer is dog.\nSofa!", None),
    ("The answer should not be D. It should be C.", None),
    ("If the answer is dog, that makes no sense. So sofa.", None),
    # denied with "be"
    ("It can't be a dog.", None), ("It cannot be the dog, so it must be the sofa.", 2),
    # that something cannot be so is the reason for it in other questions
    ("The sofa cannot be eaten.", 2), ("The answer is C, which cannot bark.", 2),
    # articles, the pronoun, letters and digits that are no options
    ("A cat is an animal.", None), ("I think so", None), ("the answer is a cat", None),
    ("The answer is a sofa", 2), ("The answer is I", None), ("The answer is E", None), ("1", None),
    ("2.", None), ("Option 3", None), ("A's", None), ("Dogs", None),
])
def test_choices(text, want):
    """Fails if an article is read as a letter, a contradiction as a choice,
    or part of a word as an option.
    """
    assert find_choice(text, FOUR) == want


@pytest.mark.parametrize(
    "options, text, want",
    of(("5", "15", "25"), ("5", 0), ("15", 1), ("B", 1), ("5 or 15", None))
    + of(("C++", "C#", ".net"), ("C++", 0), ("It is C#.", 1), (".net", 2), ("The answer is C#.", 1))
    + of(("spinach", "a tire", "the sky"), ("Sky.", 2), ("It is a tire", 1), ("tired", None))
    + of(("a dog", "the dog"), ("a dog", 0), ("dog", None)) + of(("Paris.", "Rome."), ("Paris", 0))
    + of(("2", "2.5"), ("The answer is 2.5 kg.", 1)) + of((".", ",", "?"), ("I think it is ?", 2))
    + of(("it melts because of heat", "it melts"), ("The answer is it melts because of heat", 0))
    + of(('type "A"', 'type "B"'), ('It is type "A", I think', 0))
    + of(("the wind", "a rock", "the sun"), ("The wind blows the rock away.", 0))
    + of(("RR", "Rr", "rr"), ("The answer is Rr.", 1))
    + of(("A dam", "A glacier"), ("It is A glacier.", 1))
    + of(("positive", "negative"), ("It is not positive.", None), ("negative, not positive", 1))
    + of(("guilty", "not guilty"), ("not guilty", 1), ("guilty", 0))
    + of(("yes", "no"), ("C", None), ("B", 1), ("no", 1), ("I know", None))
    + of(("Yes", "No"), ("Yes, there is no circle.", 0), ("No, yes is wrong", 1), ("yes", 0))
    + of(("No", "Yes"), ("**Yes**, no circle is there", 1), ("Yes no", None), ("Nose.", None))
    + of(("yes", "no"), *((said, 0) for said in (
        "Answer: Yes, there is no circle.", "Yes - there is no circle", "Yes there is no circle.",
        "Yes because there is no circle", "Yes\nThere is no circle", '"Yes", there is no circle')))
    + of(("yes", "no"), *((said, None) for said in (
        "Yes is wrong", "Yes, and no", "Yes, no, maybe", "Yes. No. Yes.", "yes, no, yes",
        "Yes and no")))
    + of(("Yes", "No"), ("Yes, no", None), ("Yes, or no?", None), ("No, wait: yes", None))
    + of(tuple("pqrstuvwx"), ("I", 8), ("I think r", 2), ("The answer is I", 8))
    + of(("B", "C"), ("B.", 0), ("The answer is C.", 1), ("The answer is A.", None), ("b)", 0))
    + of(("C", "B", "A"), ("C.", 0), ("**A**", 2), ("The answer is B", 1))
    + of(("an", "a", "the"), ("a.", 1), ("an", 0), ("C", 2), ("a)", 1))
    + of(("1", "2", "3"), ("2.5", None), ("-2", None), ("\u22122", None), ("2,000", None))
    + of(("1", "2", "3"), ("2.", 1), ("It is 2, not 3", 1), ("B", 1), ("$2", 1))
    + of(("5", "0.5", "-5"), ("0.5", 1), ("5", 0), ("x = -5", 2)))
def test_choices_of_other_shapes(options, text, want):
    """Fails if an option is read as a pattern or inside a number or word,
    or the letters do not follow their count.
    """
    assert find_choice(text, options) == want


def test_code():
    """Fails if prose reaches the sandbox, or text behind the fence is taken for code."""
    body = "def f(x):\n    return x\n"
    assert find_code(f"Sure!\n```python\n{body}```\nThis works because 1 = 2.") == body
    assert find_code(f"```\n{body}") == body and find_code(f"```py\n{body}```") == body
    assert find_code(f"Here you go:\n{body}") == body and find_code("nothing") == "nothing"
    assert find_code(f"```python\n{body}```\n```python\nprint(1)\n```") == body
    for label in ("python", "Python", "python3", "py", "", "python \r"):
        assert find_code(f"```{label}\n{body}```") == body
    assert (find_code("import math\n\n" + body) == "import math\n\n" + body
            == find_code("Use math:\nimport math\n\n" + body))
    assert find_code(f"I define f below.\n{body}") == body and find_code("") == ""


BODY, OTHER = "def f(x):\n    return x\n", "pip install x\n"
FENCES = {  # answer -> the code in it; CASES row 5
    f"```bash\n{OTHER}```\nThen:\n```python\n{BODY}```\nDone.": BODY,
    f"```text\n{OTHER}```\n\n```python\n{BODY}```": BODY, f"``` python\n{BODY}```": BODY,
    f"```python3.11\n{BODY}```": BODY, f"```Python 3\n{BODY}```": BODY, f"```py3\n{BODY}```": BODY,
    f"```{{python}}\n{BODY}```": BODY, f"```{{.python .numberLines}}\n{BODY}```": BODY,
    f"```python title=\"a.py\"\n{BODY}```": BODY,
    f"```python:a.py\n{BODY}```": BODY, f"````python\n{BODY}````": BODY,
    f"~~~python\n{BODY}~~~\nx": BODY, f"```ipython\n{BODY}```": BODY,
    f"```\n{OTHER}```\n```python\n{BODY}```": BODY, f"```\n{BODY}```\n```\n{OTHER}```": BODY,
    f"```json\n{{}}\n```\n```\n{BODY}```": BODY, f"```bash\n{OTHER}\n```python\n{BODY}```": BODY,
    f"Use `f` or ```x``` here.\n```python\n{BODY}```": BODY,
    "1. Do:\n\n   ```python\n   def f(x):\n       return x\n   ```\n2. x": BODY,
    "1. ```python\n   def f(x):\n       return x\n   ```\n2. x": BODY,
    f"Here: ```python\n{BODY}```\nx": BODY, f"```python\n{BODY}\n": BODY + "\n",
    f"```bash\n{OTHER}```\n```python\n{BODY}": BODY, f"```python\r\n{BODY}```\r\nx": BODY,
    f"```python\n{BODY.rstrip()}```\nIt works.": BODY.rstrip(),
    f"```python\n{BODY}```\n```bash\n{OTHER}```": BODY,
    f"```python\ns = '```'\n{BODY}```\nx": f"s = '```'\n{BODY}",
    f"```javascript\nx\n```\n{BODY}": BODY,
    f"```python\n{BODY}```\n```python\nprint(f(1))\n```": BODY,
    f"I use a ```python fence.\n```python\n{BODY}```": BODY,
    f"```python\n```\n```python\n{BODY}```\nx": BODY,
    f"```\n$ python\n>>> 1\n```\n``` Python3\n{BODY}```": BODY,
    f"```python-repl\n>>> f(1)\n```\n```py\n{BODY}```": BODY, f"```Python-3.11\n{BODY}```": BODY,
    # a block that defines nothing, in front
    f"```python\nimport math\n```\n```python\n{BODY}```\nx": BODY,
    f"```python\nimport math, os\n```\n```python\n{BODY}z = math.pi\n```":
        f"import math, os\n{BODY}z = math.pi\n",
    f"```python\nfrom __future__ import annotations\n```\n```python\n{BODY}```": BODY,
    f"```python\n{BODY}    ```\nSo `f` is done.": BODY, f"* x\n```python\n{BODY}     ```\nx": BODY,
    f"```python\n{BODY[:-1]}  # see\n    '''\n    ```\n    f(1)\n    ```\n    '''\n```\nDone.":
        f"{BODY[:-1]}  # see\n    '''\n    ```\n    f(1)\n    ```\n    '''\n",
    f"[BEGIN]\n{BODY}[DONE]": BODY, f"{BODY}Done": BODY,
    f"```python\nprint(f(1))\n```\n```python\n{BODY}```\n```python\nx = 2\n```": BODY,
    f"```\n1\n```\n```\n{BODY}```": BODY, f"```text\n{BODY}```": BODY,
    f"```\n    return x\n```\n```\ndef test():\n    1\n```": "    return x\n",
    "```python\ng = f\n# return x\n```\n```java\nclass X {}\n```": "g = f\n# return x\n",
    "```\ng = 1\n```\n```python\nf = (lambda x: x)  # return x\n```\n```py\ng = 2\n```":
        "f = (lambda x: x)  # return x\n",
    # a tail that is no Python, not a body behind its comments
    "# Solution\n# goes on\n    return x\n": "# Solution\n# goes on\n    return x\n",
    f"```python\n{BODY}\n# Example:\nprint(\"It is": f"{BODY}\n# Example:\n",
    f"Here:\n\n{BODY}\nThis function returns x.": f"{BODY}\n",
    f"{BODY}\nComplexity: O(n)": f"{BODY}\n",
    f"{BODY}\nNote: untested": f"{BODY}\n",
    # what a function needs above it, but no prose
    f"y = 'aeiou'\n\n{BODY}": f"y = 'aeiou'\n\n{BODY}",
    f"Here:\ny = 2\nz = y + 1\n{BODY}": f"y = 2\nz = y + 1\n{BODY}",
    f"x = 5 apples\n{BODY}": BODY, f"a = pi * r\n{BODY}": BODY, f"x == 3\n{BODY}": BODY,
    f"```python\n{BODY}\nmemo: dict = {{}}\n```": f"{BODY}\nmemo: dict = {{}}\n",
    f"```python\n{BODY}\nprint(f(1)\n```\nx": f"{BODY}\n",
    # a function beside a block that defines nothing
    f"{BODY}\nExample:\n```python\nprint(f(1))\n```": f"{BODY}\n",
    f"```python\nimport x, y\n```\nThen\n{BODY}\n```\nx\n```":
        f"import x, y\n{BODY}\n",
    "```\nf = g(len)  # return x\n```\nclass of problems": "f = g(len)  # return x\n",
    f"from math import sqrt\n\n```python\n{BODY}z = sqrt(4)\n```":
        f"from math import sqrt\n{BODY}z = sqrt(4)\n",
    f"from the above we get\n{BODY}": BODY,
    f"{BODY}```\nThis works.": BODY, f"{BODY}\n```\n1\n```\nDone.": f"{BODY}\n\n"}


def test_a_function_that_is_cut_off_stays_so():
    """Fails if half a function is mended, or a text nested deeper than Python reads is an error.
    """
    half = "def f(x):\n    if x:\n        return 1\n    return x +"
    assert find_code(half) == half and find_code(f"{BODY}\n{half}") == f"{BODY}\n"
    for deep in ("(" * 9999, "-" * 99999 + "1", "not " * 9999, "1+" * 99999 + "1",
                 "x." * 9999 + "x", "lambda:" * 9999, "\0", "f'{" * 999):
        assert find_code(f"{BODY}\n{deep}").startswith(BODY), deep[:9]


@pytest.mark.parametrize("text", FENCES)
def test_the_first_python_fence_counts(text):
    """Fails if a block in another language, or a fence with a space, a version or an indent,
    or a block that defines nothing, hides the program (CASES row 5).
    """
    assert find_code(text) == FENCES[text]


@pytest.mark.parametrize("text", FENCES)
def test_graded_end_is_behind_the_code_that_is_found(text):
    """Fails if the reward credits other tokens than those of the block that is run,
    or prose behind it.
    """
    end = graded_end(text)
    assert find_code(text[:end]).rstrip() == FENCES[text].rstrip()
    assert FENCES[text].rstrip().splitlines()[-1].strip() in text[:end]
    assert end is None or "return x" not in text[end:]
    assert graded_end("no code 3") is None and graded_end(f"```bash\n{OTHER}```\nx") is None
    assert graded_end("```python\nx = 1\n") is None        # not closed yet: what follows decides


def test_values():
    """Fails if True passes for 1, a tuple for a list, or rounding costs the reward."""
    assert same_value(0.1 + 0.2, 0.3)
    assert same_value([1, {"a": (2.0,)}], [1, {"a": (2,)}]) and same_value(None, None)
    for a, b in ((True, 1), (0, False), ([1], (1,)), ("1", 1), ([1], [1, 2]),
                 ({1: 2}, {1: 3}), (None, 0), (1, 1.1), ("a", b"a"), ([True], [1]),
                 ({"a": 1}, {"b": 1}), (1.0, True), (0.0, None), ("", None), ([], ()),
                 (float("inf"), float("-inf")), (float("inf"), 1.0), (float("nan"), float("nan"))):
        assert not same_value(a, b) and not same_value(b, a)


def test_values_of_any_size():
    """Fails if large integers are compared as floats, which is wrong for 10**20
    and raises for 10**400.
    """
    assert same_value(10**20, 10**20) and not same_value(10**20, 10**20 + 1) and same_value(2, 2.0)
    for small in (5, 1.5, -1e300):
        assert not same_value(10**400, small) and not same_value([small], [-10**400])
    assert same_value(0.0, 1e-12) and not same_value(1e9, 1e9 + 10) and same_value(1e9, 1e9 + 0.1)


def test_normal_and_splits():
    """Fails if wording decides the split, or the shares are not 80/10/10."""
    assert normal(" The Apple. ") == "apple" == normal("**apple**")
    assert normal("\u201cAn  Apple\u201d!") == "apple" == normal('the "apple"')
    assert normal("Ann\nLee") == "ann lee"
    assert normal(".5") == "0.5" == normal("0.5") and normal("($.5).") == "$0.5"
    assert normal("...5") == "5" == normal("5.") and normal("v.5") == "v.5"
    assert normal(".7z") == "7z" and normal(".1.2") == "1.2"
    assert normal("Theo") == "theo" and normal("don't") == "don't" and normal("?!") == ""
    a, b = (Example(p, "1", "number", key="same") for p in ("one wording", "another"))
    assert split_of(a) == split_of(b)
    found = [split_of(Example(str(i), "1", "number")) for i in range(4000)]
    assert abs(found.count("train") / 4000 - 0.8) < 0.03
    assert abs(found.count("test") / 4000 - 0.1) < 0.02
    assert abs(found.count("val") / 4000 - 0.1) < 0.02
    thirds = [split_of(Example(str(i), "1", "number"), 3) for i in range(4000)]
    assert all(abs(thirds.count(s) / 4000 - 1 / 3) < 0.03 for s in ("train", "val", "test"))
    # a hash that Python salts per process would move examples between splits
    # from one run to the next
    assert [split_of(Example(p, "", "open", key=k))
            for p, k in (("0", ""), ("x", "1"), ("1", "2"))] == ["val", "test", "train"]
